"""A tiny converter under the same protocol as the shipped model: 24 kHz, hop 300, latency 900
samples, a few convolutions."""

from collections.abc import Callable
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from rtvc.layers.contract import Serial, State, Streaming
from rtvc.layers.conv import Conv
from rtvc.voices.voice import Voice


class Pointwise(Streaming):
    """A function of single frames: no state, no latency."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x (B, C, T) -> function(x)."""
        return self.function(x), state


class TinyConfig(BaseModel):
    """Sizes of `TinyConverter`, and where its weights begin."""

    width: int = 12
    seed: int = 0


class TinyConverter(nn.Module):
    """Frames of 300 samples through two causal convolutions, scaled and shifted by the voice, and a
    count of the frames."""

    sample_rate, hop, latency = 24_000, 300, 900

    def __init__(self, width: int | TinyConfig = 12, seed: int = 0) -> None:
        super().__init__()
        sizes = width if isinstance(width, TinyConfig) else TinyConfig(width=width, seed=seed)
        self.config, width = sizes, sizes.width
        torch.manual_seed(sizes.seed)
        self.body = Serial(
            Conv(300, width, 3, right=1), Pointwise(nn.Tanh()), Conv(width, 300, 5, right=2)
        )
        self.style = nn.Linear(256, 2 * width)

    def initial(self, batch: int) -> State:
        return {"body": self.body.initial(batch), "frames": torch.zeros(batch)}

    def condition(
        self, acoustic: Tensor, prosodic: Tensor, *, pitch: float = 0.0, prosody: float = 1.0
    ) -> Tensor:
        voice = torch.cat([acoustic, prosodic * prosody], -1)
        return torch.cat(
            [torch.tanh(self.style(voice)), torch.full_like(voice[:, :1], pitch / 12)], -1
        )

    def forward(self, x: Tensor, voice: Tensor, state: State) -> tuple[Tensor, State]:
        frames = x.unflatten(-1, (-1, self.hop)).squeeze(1).mT
        y, body = self.body(frames, state["body"])
        scale = voice[:, :1, None] + voice[:, -1:, None]
        y = y * (1 + scale) + voice[:, 1:2, None] * torch.tanh(frames) * 0.1
        return y.mT.flatten(1)[:, None], {
            "body": body,
            "frames": state["frames"] + frames.shape[-1],
        }


class DelayConverter(nn.Module):
    """Gives back its input `latency` samples later, times a gain that the voice holds: every sample
    can be accounted for."""

    sample_rate, hop, latency = 24_000, 300, 900

    def initial(self, batch: int) -> State:
        return torch.zeros(batch, 1, self.latency)

    def condition(
        self, acoustic: Tensor, prosodic: Tensor, *, pitch: float = 0.0, prosody: float = 1.0
    ) -> Tensor:
        return acoustic[:, :1] * 2 ** (pitch / 12)

    def forward(self, x: Tensor, voice: Tensor, state: Any) -> tuple[Tensor, State]:
        x = torch.cat([state, x], -1)
        return x[..., : -self.latency] * voice[:, :, None], x[..., -self.latency :]


class TestVoice(Voice):
    """A voice of no recording, told apart by a seed; `gain` sets the first value of its timbre."""

    __test__ = False

    def __init__(self, seed: int = 0, gain: float | None = None) -> None:
        generator = torch.Generator().manual_seed(seed)
        acoustic = torch.randn(128, generator=generator) * 0.3
        prosodic = torch.randn(128, generator=generator) * 0.3
        if gain is not None:
            acoustic[0] = gain
        super().__init__(acoustic, prosodic)
