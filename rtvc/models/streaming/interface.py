"""What every streaming converter offers: sessions, servers, builders and benchmarks are written
against this alone."""

from typing import Protocol

import torch
from torch import Tensor, nn

from rtvc.errors import VoiceError
from rtvc.layers.contract import State
from rtvc.models.streaming.style import STYLE
from rtvc.voices.voice import Voice


class Converter(Protocol):
    """A waveform-to-waveform voice converter under the state contract.

    Attributes:
        sample_rate: of input and output, in Hz.
        hop: every chunk holds a multiple of this many samples.
        latency: samples by which the output lags the input (mel window and look-ahead, without the
            chunk itself).
    """

    sample_rate: int
    hop: int
    latency: int

    def initial(self, batch: int) -> State:
        """The state before the first sample, for `batch` sessions."""
        ...

    def condition(
        self, acoustic: Tensor, prosodic: Tensor, *, pitch: float = 0.0, prosody: float = 1.0
    ) -> Tensor:
        """Everything a step needs to know of a voice, computed once: (B, V), mixable by weighted
        sums only per style vector.

        Its last numbers are what the decoder is told of the timbre: what `Voice.fine` is added to.

        Args:
            acoustic: (B, 128) timbre.
            prosodic: (B, 128) pitch register and range, energy, rhythm.
            pitch: semitones added to the pitch.
            prosody: 0 keeps the source's register and range, 1 takes the voice's.
        """
        ...

    def __call__(self, x: Tensor, voice: Tensor, state: State) -> tuple[Tensor, State]:
        """x (B, 1, N) waveform, voice (B, V) from `condition` -> y (B, 1, N) waveform and the next
        state."""
        ...


def conditioned(
    converter: Converter, voice: Voice, *, pitch: float = 0.0, prosody: float = 1.0
) -> Tensor:
    """Everything a step needs to know of a voice, (1, V): `Converter.condition`, and on top of its
    last numbers the voice's `fine`.

    Raises:
        VoiceError: `fine` is longer than what the converter is told of a voice, or what comes of
            the voice is not finite.
    """
    place = (
        next(iter(converter.parameters()), voice.acoustic)
        if isinstance(converter, nn.Module)
        else voice.acoustic
    )
    acoustic, prosodic = (
        style[None].to(place.device) for style in (voice.acoustic, voice.prosodic)
    )
    fitting = {STYLE, getattr(converter, "acoustic_size", STYLE)}
    if acoustic.shape[1] not in fitting:
        raise VoiceError(
            f"expected an acoustic style of {' or '.join(map(str, sorted(fitting)))} numbers, got"
            f" {acoustic.shape[1]}: make the voice again from its recordings (rtvc voice create)"
        )
    condition = converter.condition(acoustic, prosodic, pitch=pitch, prosody=prosody)
    fine = voice.fine
    if fine is None:
        return finite(condition)
    if len(fine) > condition.shape[1]:
        raise VoiceError(
            f"expected a voice fitted to at most {condition.shape[1]} numbers, got {len(fine)}: fit"
            " it again with this model"
        )
    return finite(
        torch.cat([condition[:, : -len(fine)], condition[:, -len(fine) :] + fine.to(condition)], 1)
    )


def finite(condition: Tensor) -> Tensor:
    """A condition (1, V), if every number of it is finite: one that is not would silence a stream
    for ever.

    Raises:
        VoiceError: one is not.
    """
    if not condition.isfinite().all():
        raise VoiceError(
            "this voice comes to NaN or infinity in this model: make it again from its recordings"
        )
    return condition
