"""What `VoiceConverter` asks of a model, and a streaming converter as such a model."""

import functools
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Protocol, cast

import torch
from torch import Tensor

from rtvc.audio.mel import HOP
from rtvc.models.streaming.interface import Converter, conditioned
from rtvc.voices.voice import Voice

if TYPE_CHECKING:
    from rtvc.models.streaming.assets import StreamingModel

CHUNK = 800 * HOP
"""Samples converted at a time when a whole recording is at hand: memory stays bounded, the result
does not change."""


class Model(Protocol):
    """What `VoiceConverter` asks of any model.

    Attributes:
        name: of the model.
        space: name of its style space: only voices of the same space can be used and mixed.
        latency: samples at 24 kHz by which a stream lags its input; None for a model that needs
            whole recordings.
        streaming: the same model as one that streams, where it is one.
    """

    name: str
    space: str
    latency: int | None

    @property
    def streaming(self) -> "StreamModel | None":
        """See the class."""
        ...

    def styles(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """A reference (1, 1, N) at 24 kHz, N a multiple of 300 -> acoustic and prosodic style, (1,
        128) each."""
        ...

    def convert(
        self, wave: Tensor, acoustic: Tensor, prosodic: Tensor, *, pitch: float, prosody: float
    ) -> Tensor:
        """wave (1, 1, N) at 24 kHz, N a multiple of 300, styles (1, 128) -> (1, 1, N), aligned with
        the input, not yet limited."""
        ...


class StreamingConverter(Converter, Protocol):
    """A streaming converter that brings its own style encoders."""

    def styles(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """See `Model.styles`."""
        ...


class StreamModel:
    """A streaming converter as a `Model`: whole recordings go through the same steps as a live
    stream."""

    def __init__(self, converter: StreamingConverter, name: str = "stream") -> None:
        self.converter, self.name = converter, name
        self.space = str(getattr(converter, "space", name))
        self.latency: int | None = converter.latency

    @property
    def streaming(self) -> "StreamModel":
        """Itself."""
        return self

    @property
    def fittable(self) -> "StreamingModel | None":
        """What voices are fitted to: a converter that maps styles to scales and shifts by an
        `affine`; None for any other."""
        affine = hasattr(self.converter, "affine")
        return cast("StreamingModel", self.converter) if affine else None

    @functools.cached_property
    def _exact(self) -> StreamingConverter:
        from rtvc.models.streaming.precise_pitch import exact

        return exact(self.converter)

    def styles(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """See `Model.styles`."""
        return self.converter.styles(wave)

    def convert(
        self, wave: Tensor, acoustic: Tensor, prosodic: Tensor, *, pitch: float, prosody: float
    ) -> Tensor:
        """See `Model.convert`."""
        return self.convert_to(wave, Voice(acoustic[0], prosodic[0]), pitch=pitch, prosody=prosody)

    def convert_to(self, wave: Tensor, voice: Voice, *, pitch: float, prosody: float) -> Tensor:
        """`Model.convert` with a voice that may be fitted: the latency is flushed with silence
        and trimmed."""
        out, at = torch.empty_like(wave), 0
        for y in self.converted(
            wave.split(CHUNK, -1), voice, wave.device, pitch=pitch, prosody=prosody
        ):
            out[..., at : at + y.shape[-1]] = y
            at += y.shape[-1]
        return out

    def converted(
        self,
        waves: Iterable[Tensor],
        voice: Voice,
        device: torch.device,
        *,
        pitch: float,
        prosody: float,
    ) -> Iterator[Tensor]:
        """Pieces (1, 1, N) of a recording, N a multiple of 300 -> as many samples, aligned with the
        input, as they become ready."""
        converter = self._exact if device.type == "cpu" else self.converter
        condition = conditioned(converter, voice, pitch=pitch, prosody=prosody)
        state, late = converter.initial(1), converter.latency
        silence = torch.zeros(1, 1, late + -late % HOP, device=device)
        came = gone = stepped = 0
        for wave in chain(waves, (None,)):
            came += 0 if wave is None else wave.shape[-1]
            y, state = converter(silence if wave is None else wave, condition, state)
            y = y[..., max(0, late - stepped) :][..., : came - gone]
            stepped += (silence if wave is None else wave).shape[-1]
            gone += y.shape[-1]
            yield y
