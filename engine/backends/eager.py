"""Plain torch: the baseline that every other backend is measured against, and the way a GPU is used
without compiling."""

from typing import cast

import torch
from torch import Tensor, nn

from rtvc.engine.backends.base import Backend, Layout, PackedStep
from rtvc.engine.graph.gpu import placed
from rtvc.models.streaming.interface import Converter
from rtvc.models.streaming.precise_pitch import exact


class TorchBackend(Backend):
    """The converter as it is, on packed states; on a GPU a copy of it steps, the converter itself
    still makes the conditions."""

    name = "torch-eager"
    stretches = True

    def __init__(self, converter: Converter, chunk: int, *, device: str = "cpu") -> None:
        plain = Layout.of(converter.initial(1))
        if torch.device(device).type == "cpu":
            converter = exact(converter)
        super().__init__(converter, chunk, device=device)
        self.layouts = (*self.layouts, plain)
        self.module = PackedStep(
            cast(Converter, placed(cast(nn.Module, converter), self.device)), self.layout
        )

    def step(self, x: Tensor, voice: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, 1, N), voice (B, V), state (B, S) -> y (B, 1, N), next state (B, S)."""
        with torch.inference_mode():
            y, new = self.module(x, voice, state)
        return y, new
