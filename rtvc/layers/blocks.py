"""The two residual blocks of the streaming model: two calls of `rtvc.kernels.block_step` each."""

import torch
from torch import Tensor, nn

from rtvc.kernels.block_step import block_step
from rtvc.layers.contract import State, Streaming
from rtvc.layers.conv import Conv
from rtvc.layers.dispatch import Dispatched
from rtvc.layers.norm import EPSILON, Statistics, style_norm, style_size

SLOPE = 0.2
"""Of the leaky ReLU after every adaptive norm, as in the StyleTTS decoders."""


class ConvBlock(Streaming, Dispatched):
    """x + Linear(GELU(Conv(norm(x)))), the norm taken over the channels of each frame."""

    def __init__(self, channels: int, kernel: int, dilation: int = 1) -> None:
        super().__init__()
        self.channels = channels
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))
        self.conv = Conv(channels, channels, kernel, dilation=dilation)
        self.out = Conv(channels, channels)

    def begin_at_zero(self) -> None:
        """Lets the block add nothing until it learns: so a trained network is grown by it."""
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def initial(self, batch: int) -> Tensor:
        """The convolution's past."""
        return self.conv.initial(batch)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x (B, C, T) -> y (B, C, T)."""
        conv, out = self.conv, self.out
        y, state = block_step(
            x,
            state,
            conv.weight,
            conv.bias,
            scale=self.scale,
            shift=self.shift,
            norm="frame",
            activation="none",
            dilation=conv.dilation,
            eps=EPSILON,
            implementation=self.implementation,
        )
        y, _ = block_step(
            y,
            out.initial(x.shape[0]),
            out.weight,
            out.bias,
            skip=x,
            norm="none",
            activation="gelu",
            implementation=self.implementation,
        )
        return y, state


class AdaBlock(Dispatched):
    """A residual block of two adaptive norms, `y, state = block(x, style, state)`: norm, leaky
    ReLU, dilated causal convolution, norm, leaky ReLU, pointwise convolution (the AdaIN residual
    block of StyleTTS made causal).
    """

    def __init__(
        self, channels: int, kernel: int, dilation: int = 1, statistics: Statistics = "frame"
    ) -> None:
        super().__init__()
        self.statistics = statistics
        self.conv = Conv(channels, channels, kernel, dilation=dilation)
        self.out = Conv(channels, channels)
        self.style_size = 2 * style_size(channels, statistics)

    def initial(self, batch: int) -> Tensor:
        """The convolution's past."""
        return self.conv.initial(batch)

    def forward(self, x: Tensor, style: Tensor, state: State) -> tuple[Tensor, State]:
        """x (B, C, T), style (B, style_size) -> y (B, C, T)."""
        first, second = style.chunk(2, 1)
        y, state = self.normed(x, first, self.conv, state)
        y, _ = self.normed(y, second, self.out, self.out.initial(x.shape[0]), skip=x)
        return y, state

    def normed(
        self, x: Tensor, style: Tensor, conv: Conv, past: Tensor, skip: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Norm, leaky ReLU and convolution of x (B, C, T), and the convolution's next past."""
        norm = style_norm(style, self.statistics)
        return block_step(
            x,
            past,
            conv.weight,
            conv.bias,
            scale=norm.scale,
            shift=norm.shift,
            skip=skip,
            norm=norm.norm,
            activation="leaky",
            dilation=conv.dilation,
            slope=SLOPE,
            eps=EPSILON,
            plus_one=norm.plus_one,
            implementation=self.implementation,
        )
