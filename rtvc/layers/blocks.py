"""The two residual blocks of the streaming model."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtvc.layers.contract import State, Streaming
from rtvc.layers.conv import Conv
from rtvc.layers.norm import EPSILON, Statistics, StyleNorm

SLOPE = 0.2
"""Of the leaky ReLU after every adaptive norm, as in the StyleTTS decoders."""


class ConvBlock(Streaming):
    """x + Pointwise(GELU(Conv(norm(x)))), the norm taken over the channels of each frame."""

    def __init__(self, channels: int, kernel: int, dilation: int = 1) -> None:
        super().__init__()
        self.channels = channels
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))
        self.conv = Conv(channels, channels, kernel, dilation=dilation)
        self.out = Conv(channels, channels)

    def initial(self, batch: int) -> State:
        """The convolution's past."""
        return self.conv.initial(batch)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x (B, C, T) -> y (B, C, T)."""
        y = F.layer_norm(x.mT, (self.channels,), self.scale, self.shift, EPSILON).mT
        y, state = self.conv(y, state)
        y, _ = self.out(F.gelu(y), self.out.initial(y.shape[0]))
        return x + y, state


class AdaBlock(nn.Module):
    """A residual block of two adaptive norms, `y, state = block(x, style, state)`: norm, leaky
    ReLU, dilated causal convolution, norm, leaky ReLU, pointwise convolution (the AdaIN residual
    block of StyleTTS made causal).
    """

    def __init__(
        self, channels: int, kernel: int, dilation: int = 1, statistics: Statistics = "frame"
    ) -> None:
        super().__init__()
        self.first, self.second = StyleNorm(channels, statistics), StyleNorm(channels, statistics)
        self.conv = Conv(channels, channels, kernel, dilation=dilation)
        self.out = Conv(channels, channels)
        self.style_size = self.first.style_size + self.second.style_size

    def initial(self, batch: int) -> State:
        """The statistics of both norms and the convolution's past."""
        return self.first.initial(batch), self.conv.initial(batch), self.second.initial(batch)

    def forward(self, x: Tensor, style: Tensor, state: State) -> tuple[Tensor, State]:
        """x (B, C, T), style (B, style_size) -> y (B, C, T)."""
        first, past, second = state
        half = self.first.style_size
        y, first = self.first(x, style[:, :half], first)
        y, past = self.conv(F.leaky_relu(y, SLOPE), past)
        y, second = self.second(y, style[:, half:], second)
        y, _ = self.out(F.leaky_relu(y, SLOPE), self.out.initial(y.shape[0]))
        return x + y, (first, past, second)
