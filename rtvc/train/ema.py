"""Exponential moving averages of weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """Float32 averages of the weights of some modules; buffers are not averaged.

    Early on the decay is (1 + n) / (10 + n), so that the random start does not linger in a short
    run.
    """

    def __init__(self, modules: Mapping[str, nn.Module], decay: float) -> None:
        self.modules, self.decay = dict(modules), decay
        self.shadow = {
            name: parameter.detach().float().clone() for name, parameter in self._parameters()
        }

    def _parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for module, of in self.modules.items():
            for name, parameter in of.named_parameters():
                yield f"{module}.{name}", parameter

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the averages towards the weights after step `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        targets = [parameter.detach().float() for _, parameter in self._parameters()]
        if targets:
            torch._foreach_lerp_(list(self.shadow.values()), targets, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within, the modules hold the averaged weights."""
        kept = {name: parameter.detach().clone() for name, parameter in self._parameters()}
        try:
            self._put(self.shadow)
            yield
        finally:
            self._put(kept)

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters():
            parameter.copy_(values[name])

    def load(self, shadow: Mapping[str, Tensor]) -> None:
        """Takes the averages of a checkpoint."""
        for name, value in self.shadow.items():
            value.copy_(shadow[name])
