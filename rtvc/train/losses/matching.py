"""Output matching: what is heard must decode, in a foreign voice, to what an averaged decoder makes
of the labels."""

import copy

import torch
from torch import nn

from rtvc.train.material.stream_data import frozen

STEADY = 0.999
"""Decay of the averaged decoder, a step."""


class SteadyDecoder(nn.ModuleDict):
    """The decoder and the affine map of styles, averaged over steps (a mean teacher: Tarvainen and
    Valpola 2017)."""

    def __init__(self, decoder: nn.Module, affine: nn.Module) -> None:
        super().__init__({"decoder": copy.deepcopy(decoder), "affine": copy.deepcopy(affine)})
        frozen(self)

    def begin(self, model: nn.Module) -> None:
        """Takes the weights of the model's parts as they are."""
        for name, module in self.items():
            module.load_state_dict(getattr(model, name).state_dict())

    @torch.no_grad()
    def follow(self, model: nn.Module) -> None:
        """A step towards the weights of the model's parts."""
        for name, module in self.items():
            theirs = getattr(model, name).parameters()
            for slow, fast in zip(module.parameters(), theirs, strict=True):
                slow.lerp_(fast, 1 - STEADY)
