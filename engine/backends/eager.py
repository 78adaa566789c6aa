"""Plain torch: the baseline that every other backend is measured against, and the way a GPU is used without compiling."""

import torch
from torch import Tensor

from rtvc.engine.backends.base import Backend, PackedStep
from rtvc.models.streaming.interface import Converter


class TorchBackend(Backend):
    """The converter as it is, on packed states."""

    name = "torch-eager"

    def __init__(self, converter: Converter, chunk: int, *, device: str = "cpu") -> None:
        super().__init__(converter, chunk, device=device)
        self.module = PackedStep(converter, self.layout)

    def step(self, x: Tensor, voice: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, 1, N), voice (B, V), state (B, S) -> y (B, 1, N), next state (B, S)."""
        with torch.inference_mode():
            y, new = self.module(x, voice, state)
        return y, new
