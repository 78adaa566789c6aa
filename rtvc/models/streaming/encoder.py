"""The causal content encoder with a latency dial: one trunk, one small layer of right context for
every look-ahead.

The trunk hears nothing of the future. What a setting of the dial waits for, its own layer reads
from the trunk's later frames, so one set of weights serves every latency, and all settings learn in
the same steps (dynamic right context: arXiv 2506.14434). Content is a narrow projection that is
trained to tell units of speech apart (soft units: van Niekerk et al. 2022, section 3).
"""

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from rtvc.layers.attention import AttentionBlock
from rtvc.layers.blocks import ConvBlock
from rtvc.layers.contract import Serial, State, Streaming
from rtvc.layers.conv import Conv
from rtvc.layers.norm import EPSILON

LOOKAHEADS = (0, 1, 2, 4, 8)
"""Frames of look-ahead that the dial has, 12.5 ms each."""
TAPS = 5
"""Most taps of a right context; a longer one skips frames."""
Channels = Annotated[int, Field(ge=1, le=2048)]
Taps = Annotated[int, Field(ge=1, le=31)]
Dilations = Annotated[tuple[Annotated[int, Field(ge=1, le=1024)], ...], Field(max_length=64)]
BlockNumbers = Annotated[tuple[Annotated[int, Field(ge=1, le=64)], ...], Field(max_length=64)]
Settings = Annotated[
    tuple[Annotated[int, Field(ge=0, le=64)], ...], Field(min_length=1, max_length=16)
]


class EncoderConfig(BaseModel):
    """Sizes of the content encoder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fall: int = Field(default=240, ge=1, le=600)
    """Samples of the analysis window after its peak, of 1,200: with 600 it is a Hann window."""
    hidden: Channels = 384
    kernel: Taps = 3
    dilations: Dilations = (1, 2, 4, 8, 16, 1, 2, 4, 8, 16)
    attention: BlockNumbers = ()
    """Numbers of the convolution blocks that an attention block follows, counted from 1."""
    content: Channels = 192
    lookaheads: Settings = LOOKAHEADS


class RightContext(Streaming):
    """x + Pointwise(GELU(Conv(norm(x)))) whose convolution reads the current and the next `right`
    frames, `right` frames late."""

    def __init__(self, channels: int, right: int) -> None:
        super().__init__()
        self.channels = channels
        dilation = -(-right // (TAPS - 1)) or 1
        if right % dilation:
            raise ValueError(
                f"a look-ahead of {right} frames cannot be read by {TAPS} taps at equal distances"
            )
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))
        self.conv = Conv(channels, channels, right // dilation + 1, dilation=dilation, right=right)
        self.out = Conv(channels, channels)
        self.latency = right

    def initial(self, batch: int) -> State:
        """The last `right` frames of the input."""
        return self.out.weight.new_zeros(batch, self.channels, self.latency)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, C, T) -> y (B, C, T), `right` frames late."""
        # One buffer of unnormalised frames serves the skip and, normalised again, the convolution:
        # the norm is a frame's own.
        frames = torch.cat([state.to(x.dtype), x], -1)
        kept = frames[..., frames.shape[-1] - self.latency :]
        y = F.layer_norm(frames.mT, (self.channels,), self.scale, self.shift, EPSILON).mT
        y, _ = self.conv(y[..., self.latency :], y[..., : self.latency])
        y, _ = self.out(F.gelu(y), self.out.initial(y.shape[0]))
        return frames[..., : x.shape[-1]] + y, kept


class ContentEncoder(Streaming):
    """mel (B, M, T) -> content (B, Z, T) at the mel rate, late by the frames that the dial is set
    to.

    Attributes:
        lookahead: frames that the dial is set to, one of the settings that were built.
    """

    def __init__(
        self,
        bands: int,
        hidden: int,
        kernel: int,
        dilations: Sequence[int],
        content: int,
        lookaheads: Sequence[int] = LOOKAHEADS,
        attention: Sequence[int] = (),
    ) -> None:
        """
        Args:
            bands: M; of more bands the lowest are read.
            hidden: channels of the trunk.
            kernel: taps of its convolutions.
            dilations: one residual block each.
            content: Z.
            lookaheads: settings of the dial.
            attention: numbers of the convolution blocks that an attention block follows, counted
                from 1.
        """
        super().__init__()
        self.bands = bands
        blocks: list[Streaming] = [Conv(bands, hidden, 5)]
        for number, dilation in enumerate(dilations, 1):
            blocks.append(ConvBlock(hidden, kernel, dilation))
            if number in attention:
                blocks.append(AttentionBlock(hidden))
        self.trunk = Serial(*blocks)
        self.contexts = nn.ModuleDict(
            {str(right): RightContext(hidden, right) for right in lookaheads}
        )
        self.norm = nn.LayerNorm(hidden)
        self.out = nn.Linear(hidden, content)
        self.lookaheads = tuple(lookaheads)
        self.set_lookahead(lookaheads[min(1, len(lookaheads) - 1)])

    @classmethod
    def of(cls, bands: int, config: EncoderConfig) -> "ContentEncoder":
        """At the sizes of a configuration."""
        c = config
        return cls(bands, c.hidden, c.kernel, c.dilations, c.content, c.lookaheads, c.attention)

    def set_lookahead(self, frames: int) -> None:
        """Sets the dial.

        Raises:
            ValueError: no such setting.
        """
        if frames not in self.lookaheads:
            raise ValueError(
                f"expected a look-ahead of {', '.join(map(str, self.lookaheads))} frames, got"
                f" {frames}"
            )
        self.lookahead = self.latency = frames

    def context(self, lookahead: int) -> RightContext:
        """The layer of one setting."""
        layer = self.contexts[str(lookahead)]
        assert isinstance(layer, RightContext)
        return layer

    def initial(self, batch: int) -> State:
        """The trunk's state and that of the dial's setting."""
        return self.trunk.initial(batch), self.context(self.lookahead).initial(batch)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x (B, M, T) -> content (B, Z, T)."""
        trunk, context = state
        x, trunk = self.trunk(x[:, : self.bands], trunk)
        x, context = self.context(self.lookahead)(x, context)
        return self.narrow(x), (trunk, context)

    def narrow(self, x: Tensor) -> Tensor:
        """What a right context gives (B, C, T) -> content (B, Z, T)."""
        content: Tensor = self.out(self.norm(x.mT)).mT
        return content

    def contents(self, mel: Tensor, lookaheads: Sequence[int]) -> list[Tensor]:
        """Whole pieces for training: mel (B, M, T) -> content (B, Z, T) of several settings, each
        aligned with mel.

        A setting's last frames, of which it would have to hear more, are made of silence.
        """
        x, _ = self.trunk(mel[:, : self.bands], self.trunk.initial(len(mel)))
        aligned = []
        for right in lookaheads:
            layer = self.context(right)
            y, _ = layer(F.pad(x, (0, right)), layer.initial(len(x)))
            aligned.append(self.narrow(y[..., right:]))
        return aligned
