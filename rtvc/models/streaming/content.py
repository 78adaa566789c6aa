"""The causal mel encoder: mel frames to speaker-independent content (StyleTTS-VC, section 3.2, made
causal)."""

from collections.abc import Sequence

from torch import Tensor, nn

from rtvc.layers.blocks import ConvBlock
from rtvc.layers.contract import Serial, State, Streaming
from rtvc.layers.conv import Conv

CONTENT = 512
"""Channels of the content: those of the teacher's aligned text encoding."""
PHONEMES = 178
"""Symbols of the teacher's token table."""


class ContentEncoder(Streaming):
    """mel (B, M, T) -> content (B, 512, T) at the mel rate, `right` frames late."""

    def __init__(
        self, bands: int, hidden: int, kernel: int, dilations: Sequence[int], right: int
    ) -> None:
        super().__init__()
        self.bands = bands
        self.trunk = Serial(
            Conv(bands, hidden, 5, right=right), *(ConvBlock(hidden, kernel, d) for d in dilations)
        )
        self.norm = nn.LayerNorm(hidden)
        self.out = nn.Linear(hidden, CONTENT)
        self.phonemes = nn.Linear(hidden, PHONEMES)
        self.latency = self.trunk.latency

    def initial(self, batch: int) -> State:
        """The trunk's state."""
        return self.trunk.initial(batch)

    def hidden(self, mel: Tensor, state: State) -> tuple[Tensor, State]:
        """The last hidden layer, (B, T, hidden)."""
        x, state = self.trunk(mel[:, : self.bands], state)
        return self.norm(x.mT), state

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x (B, M, T), of which the lower bands are used -> content (B, 512, T)."""
        hidden, state = self.hidden(x, state)
        return self.out(hidden).mT, state
