"""The streaming model at a few thousand numbers, and a model with its voice fixed."""

from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from rtvc.layers.contract import State, Streaming
from rtvc.models.streaming import StreamingConfig, StreamingConverter
from rtvc.models.streaming.dial import DialConfig, DialConverter
from rtvc.models.streaming.encoder import EncoderConfig

SIZES: dict[str, Any] = {
    "content_hidden": 16,
    "content_dilations": (1, 2),
    "pitch_hidden": 16,
    "pitch_dilations": (1, 2),
    "decoder_hidden": 16,
    "decoder_dilations": (1, 2),
    "acoustic_hidden": 8,
    "prosodic_hidden": 8,
}


def small_converter(**sizes: Any) -> StreamingConverter:
    """Every part is present; always the same random weights; `sizes` are other than `SIZES`."""
    torch.manual_seed(0)
    return StreamingConverter(StreamingConfig(**(SIZES | sizes))).eval()


def small_dial(**sizes: Any) -> DialConverter:
    """The same of the model with a latency dial."""
    torch.manual_seed(0)
    encoder = EncoderConfig(hidden=16, dilations=(1, 2), content=8)
    own = {name: size for name, size in SIZES.items() if not name.startswith("content")}
    config = DialConfig(encoder=encoder, **(own | {"timbre": (1,), "tokens": 4} | sizes))
    return DialConverter(config).eval()


class WithVoice(Streaming):
    """A model with a voice fixed: waveform to waveform, an ordinary layer under the contract.

    Args:
        model: a converter.
        loudness: by which the output is divided, to a size of about 1: random weights may be loud.
    """

    ratio = Fraction(1)

    def __init__(self, model: Any, loudness: float = 1.0) -> None:
        super().__init__()
        self.model, self.latency, self.loudness = model, model.latency, loudness

    def initial(self, batch: int) -> State:
        state: State = self.model.initial(batch)
        return state

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        generator = torch.Generator().manual_seed(1)
        acoustic, prosodic = (
            torch.randn(1, size, generator=generator, dtype=x.dtype)
            for size in (getattr(self.model, "acoustic_size", 128), 128)
        )
        voice = self.model.condition(acoustic, prosodic, pitch=2.0, prosody=0.5).expand(len(x), -1)
        y, state = self.model(x * 0.1, voice, state)
        return y / self.loudness, state
