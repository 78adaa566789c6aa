"""Causal stand-ins for AdaIN's instance statistics (StyleTTS-VC, section 3.1; the comparison is in
docs/normalisation.md).

AdaIN normalises each channel by its mean and deviation over the whole utterance, which no stream
can know. All four stand-ins end in the same style-driven scale and shift; they differ in what is
taken out before it.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtvc.layers.contract import State

Statistics = Literal["frame", "film", "running", "predicted"]
EPSILON = 1e-5
SCAN = 32
"""Frames that the running statistics advance by in one matrix product."""


class StyleNorm(nn.Module):
    """`y, state = norm(x, style, state)`: normalise causally, then scale and shift by the style.

    Args:
        channels: C.
        statistics: what is normalised by. `frame`: mean and deviation over the channels of each
            frame (adaptive layer norm, as in MeanVC and X-VC). `film`: nothing (as in StreamVC).
            `running`: exponential averages over past frames, carried as state. `predicted`: a mean
            and deviation a channel that the style itself supplies.
        memory: time constant of the running statistics, in frames.
    """

    decay: Tensor

    def __init__(
        self, channels: int, statistics: Statistics = "frame", memory: float = 80.0
    ) -> None:
        super().__init__()
        self.channels, self.statistics = channels, statistics
        self.register_buffer("decay", torch.tensor(1 - 1 / memory), persistent=False)

    @property
    def style_size(self) -> int:
        """Numbers of style a norm takes: scale and shift, and for `predicted` a log-deviation and a
        mean as well."""
        return self.channels * (4 if self.statistics == "predicted" else 2)

    def initial(self, batch: int) -> State:
        """Nothing, or for `running` the mean and the mean square (B, 2 C, 1) of a signal of zero
        mean and unit power."""
        if self.statistics != "running":
            return ()
        zeros = self.decay.new_zeros(batch, self.channels, 1)
        return torch.cat([zeros, zeros + 1], 1)

    def forward(self, x: Tensor, style: Tensor, state: State) -> tuple[Tensor, State]:
        """x (B, C, T), style (B, style_size) -> y (B, C, T)."""
        style = style[:, :, None]
        scale, shift = style[:, : self.channels], style[:, self.channels : 2 * self.channels]
        if self.statistics == "frame":
            x = F.layer_norm(x.mT, (self.channels,), eps=EPSILON).mT
        elif self.statistics == "predicted":
            deviation, mean = style[:, 2 * self.channels :].chunk(2, 1)
            x = (x - mean) * torch.exp(-deviation)
        elif self.statistics == "running":
            moments, state = self.running(torch.cat([x, x.square()], 1), state)
            mean, square = moments.chunk(2, 1)
            x = (x - mean) * torch.rsqrt((square - mean.square()).clamp(min=0) + EPSILON)
        return x * (1 + scale) + shift, state

    def running(self, x: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """The exponential average of x (B, 2C, T) at every frame, from `last` (B, 2C, 1)."""
        averages = []
        for part in x.split(SCAN, -1):
            frames = torch.arange(part.shape[-1], device=x.device)
            lag = (frames[:, None] - frames[None]).to(self.decay.dtype)
            kernel = torch.where(
                lag >= 0, self.decay ** lag.clamp(min=0), torch.zeros_like(lag)
            ) * (1 - self.decay)
            average = part.to(self.decay.dtype) @ kernel.mT + last * self.decay ** (frames + 1)
            last = average[..., -1:]
            averages.append(average)
        return torch.cat(averages, -1), last
