"""The causal F0 and voicing network."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rtvc.audio.mel import HOP
from rtvc.layers.blocks import ConvBlock
from rtvc.layers.contract import Serial, State, Streaming
from rtvc.layers.conv import Conv

F0_MIN, F0_MAX = 50.0, 600.0
SEMITONE = math.log(2) / 12
"""In log F0."""
F0_CENTRE, F0_SCALE = 5.0, 2.0
"""Networks take (log F0 - 5) * 2: nothing at 148 Hz, and within -2 to 3 for any speaker."""
AHEAD = HOP // 2
"""Samples after a frame's centre for which the network speaks."""
F0_BINS = 128
"""Logarithmic, 34 cents apart."""


def bin_centres(bins: int = F0_BINS, highest: float = F0_MAX) -> Tensor:
    """log F0 of every bin up to `highest` Hz, (bins,)."""
    return torch.linspace(math.log(F0_MIN), math.log(highest), bins)


class PitchNet(Streaming):
    """Log-power of the low bins and mel (B, C, T) -> log F0 over voicing (B, 2, T).

    The classifier's probabilities around their peak are averaged, which is finer than a bin and
    never averages two octaves. No look-ahead of its own: its frame t speaks for the time 1.5 frames
    after the centre of mel frame t - 1, which that frame's window and the next one's cover.
    """

    centres: Tensor

    def __init__(
        self,
        inputs: int,
        hidden: int,
        kernel: int,
        dilations: Sequence[int],
        bins: int = F0_BINS,
        highest: float = F0_MAX,
    ) -> None:
        super().__init__()
        self.trunk = Serial(
            Conv(inputs, hidden, 3), *(ConvBlock(hidden, kernel, d) for d in dilations)
        )
        self.norm = nn.LayerNorm(hidden)
        self.out = nn.Linear(hidden, bins + 1)
        self.register_buffer("centres", bin_centres(bins, highest), persistent=False)

    def initial(self, batch: int) -> State:
        """The trunk's state."""
        return self.trunk.initial(batch)

    def logits(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x (B, C, T) -> (B, T, bins + 1): a logit a bin, and the voicing logit last; computed in
        the type of the weights, which may be finer than that of the rest of the model."""
        y, state = self.trunk(x.to(self.out.weight.dtype), state)
        return self.out(self.norm(y.mT)), state

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x (B, C, T) -> log F0 in log Hz, and voicing 0..1, as (B, 2, T) float64."""
        logits, state = self.logits(x, state)
        bins, voicing = logits[..., :-1], torch.sigmoid(logits[..., -1])
        peak = self.centres[bins.argmax(-1, keepdim=True)]
        width = 3.0 * (self.centres[1] - self.centres[0])
        distance = self.centres - peak
        near = torch.softmax(bins.masked_fill(distance.abs() > width, -1e4), -1)
        # Phases add up what float32 would round off here; distances to the peak and float64 keep
        # that below hearing and measure.
        return (
            torch.stack(
                [peak[..., 0].double() + (near * distance).sum(-1).double(), voicing.double()], 1
            ),
            state,
        )
