"""The public API of a loaded model: make a voice of a recording, convert samples, open a stream."""

import dataclasses
import functools
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rtvc import checks
from rtvc.audio.io import StrPath
from rtvc.audio.mel import HOP, SAMPLE_RATE
from rtvc.audio.recording import Recording as Source
from rtvc.audio.recording import recording_of
from rtvc.audio.resample import check_rate, resample, resampled_length
from rtvc.audio.samples import Samples
from rtvc.errors import ConfigError, VoiceError
from rtvc.layers.limiter import limited
from rtvc.stream_model import CHUNK, Model, StreamModel
from rtvc.voices.blend import blended_name
from rtvc.voices.reference import compared, find_reference
from rtvc.voices.usable import usable
from rtvc.voices.voice import Voice

if TYPE_CHECKING:
    from rtvc.engine.streams.session import Session
    from rtvc.models.streaming.assets import StreamingModel

Recording = StrPath | tuple[Any, int]
"""A file, or samples (N,) or (N, C) with their rate in Hz."""
Reference = Recording | Voice
"""What a voice is made of: a recording, a voice file (`*.voice`) or a `Voice`."""

UNKNOWN_SPEECH = 10.0
"""Seconds of speech that a voice counts for, among several, when its file does not say."""
SETTINGS = {"output_rate", "pitch", "prosody", "wet", "gate", "backlog"}
"""What else a stream can be told."""


class VoiceConverter:
    """A loaded model; `rtvc.load` makes one.

    Attributes:
        model: the model behind it.
        device: where it runs.
        sample_rate: of what `convert` returns, in Hz.
    """

    sample_rate = SAMPLE_RATE

    def __init__(self, model: Model, device: str = "cpu") -> None:
        self.model, self.device = model, torch.device(device)

    @property
    def latency(self) -> float | None:
        """Seconds by which a stream lags its input: the model's look-ahead and the block it works
        on. None: not a streaming model."""
        return None if self.model.latency is None else (self.model.latency + HOP) / SAMPLE_RATE

    def voice(
        self,
        *references: Reference,
        timbre: Reference | Sequence[Reference] | None = None,
        prosody: Reference | Sequence[Reference] | None = None,
        name: str | None = None,
        fit: int = 0,
    ) -> Voice:
        """The voice of one or more recordings, weighted by how much speech each holds.

        Args:
            references: recordings of the person, or voices.
            timbre: take the sound of the voice from these instead.
            prosody: take pitch register and range, energy and rhythm from these instead.
            name: of the voice; default: of the first reference.
            fit: steps of fitting the voice to the recordings, which makes it more alike and takes
                0.07 s a step on one core (`rtvc.voices.fit`); 0 leaves it at what the style
                encoders hear. Voices among the references are not fitted again.

        Raises:
            AudioError: a recording cannot be read or used, or nobody speaks in it.
            ConfigError: the model cannot fit voices.
            VoiceError: no reference at all, or a voice file that cannot be used.
        """
        if checks.count(fit, "fit") and not self.fittable:
            raise ConfigError(
                f"voices of the model {self.model.name!r} cannot be fitted: leave fit out"
            )
        whole = self._blend(references, 0 if timbre is not None else fit) if references else None
        sound = self._blend(listed(timbre), fit) if timbre is not None else whole
        manner = self._blend(listed(prosody)) if prosody is not None else whole
        sound, manner = sound or manner, manner or sound
        if sound is None or manner is None:
            raise VoiceError("expected at least one recording or voice file, got no reference")
        voice = sound if sound is manner else sound.with_prosody_of(manner)
        if name is not None and not isinstance(name, str):
            raise VoiceError(f"expected a text as the name of a voice, got {checks.what(name)}")
        return voice if name is None else dataclasses.replace(voice, name=name)

    def convert(
        self,
        x: Any,
        sr: float,
        voice: Voice,
        *,
        pitch: float = 0.0,
        prosody: float = 1.0,
        output_rate: float = SAMPLE_RATE,
    ) -> Samples:
        """Says the same with another voice.

        Args:
            x: samples (N,) or (N, C) in -1..1, array or tensor.
            sr: their rate in Hz.
            voice: the voice to speak with.
            pitch: semitones added to the pitch, -24 to 24.
            prosody: 0 keeps the speaker's own pitch register and range, 1 takes the voice's.
            output_rate: wanted, in Hz.

        Returns:
            (M,) float32 in -1..1, of the same duration, at `output_rate` (24 kHz unless asked
            otherwise).

        Raises:
            AudioError: samples that cannot be used, or a rate, pitch or prosody out of range.
            VoiceError: no voice, or one of another style space.
        """
        voice = self._usable(voice)
        pitch, prosody = checks.pitch(pitch), checks.prosody(prosody)
        output_rate = check_rate(output_rate)
        source = recording_of(x, sr)
        whole = np.empty(resampled_length(source.frames, source.rate, SAMPLE_RATE), np.float32)
        at = 0
        for piece in self.convert_recording(source, voice, pitch=pitch, prosody=prosody):
            whole[at : at + len(piece)] = piece
            at += len(piece)
        y = resample(whole, SAMPLE_RATE, output_rate)
        return np.clip(y, -1, 1, out=y)  # what resampling swings beyond full scale

    def convert_recording(
        self, source: Source, voice: Voice, *, pitch: float = 0.0, prosody: float = 1.0
    ) -> Iterator[Samples]:
        """`convert` of a recording that is read piece by piece: a streaming model needs no more
        memory for hours than for seconds.

        Args:
            source: what `rtvc.audio.recording.open_recording` found.
            voice: as for `convert`; so are pitch and prosody.

        Returns:
            Pieces (N,) float32 at 24 kHz, as long as the source together.

        Raises:
            AudioError: a pitch or prosody out of range.
            VoiceError: a voice of another style space.
        """
        voice = self._usable(voice)
        controls = {"pitch": checks.pitch(pitch), "prosody": checks.prosody(prosody)}
        owed = resampled_length(source.frames, source.rate, SAMPLE_RATE)
        if (streaming := self.model.streaming) is not None:
            chunks = source.chunks(SAMPLE_RATE, CHUNK, HOP)
            waves = (torch.from_numpy(chunk)[None, None].to(self.device) for chunk in chunks)
            converted = streaming.converted(waves, voice, self.device, **controls)
        else:
            converted = self._at_once(source, voice, **controls)
        while owed > 0:
            # Not around a `yield`: the caller's code is none of our business.
            with torch.inference_mode():
                y = next(converted)
            piece = y[0, 0, :owed].float().cpu().numpy()
            owed -= len(piece)
            yield piece

    def _at_once(
        self, source: Source, voice: Voice, *, pitch: float, prosody: float
    ) -> Iterator[Tensor]:
        """What a model of whole recordings makes of one, limited as a stream is."""
        wave = torch.from_numpy(source.samples(SAMPLE_RATE))
        padded = F.pad(wave, (0, -len(wave) % HOP))[None, None].to(self.device)
        acoustic, prosodic = (
            voice.acoustic[None].to(self.device),
            voice.prosodic[None].to(self.device),
        )
        yield limited(
            self.model.convert(padded, acoustic, prosodic, pitch=pitch, prosody=prosody).float(),
            SAMPLE_RATE,
        )

    def stream(
        self,
        voice: Voice,
        *,
        sample_rate: float = SAMPLE_RATE,
        chunk: int | None = None,
        backend: str = "torch-eager",
        **settings: Any,
    ) -> "Session":
        """A live stream: `push` blocks of any size, get what is ready, `flush` at the end.

        Args:
            voice: the voice to speak with.
            sample_rate: of the blocks, in Hz.
            chunk: samples at 24 kHz that the model converts at a time, a multiple of 300; by
                default 300, or with `auto` the shortest that is safe on this machine.
            backend: torch-eager is there at once and equals `convert`; `auto` begins with it and
                goes on with the best of this machine (about three times as fast) when that is
                ready, which takes minutes once a machine; or one by name (`rtvc build --help`).
                All streams of a kind share one engine.
            settings: what else `rtvc.engine.streams.session.Session` takes: output_rate, pitch,
                prosody, wet, gate, backlog.

        Raises:
            AudioError: a rate or a control that no stream has.
            ConfigError: the model needs whole recordings, or a setting that no stream has.
            VoiceError: no voice, or one of another style space.
        """
        if unknown := set(settings) - SETTINGS:
            raise ConfigError(
                f"expected settings among {', '.join(sorted(SETTINGS))}, got"
                f" {', '.join(sorted(unknown))}"
            )
        backend = checks.path(backend, "the backend")
        chunk = None if chunk is None else checks.count(chunk, "chunk", 1)
        streaming = self._streaming()
        voice = self._usable(voice)
        from rtvc.engine.shared import shared
        from rtvc.engine.streams.session import TOGETHER, Session

        engine = shared(streaming.converter, backend, chunk, str(self.device))
        return Session(engine, voice, sample_rate=sample_rate, together=TOGETHER, **settings)

    def _streaming(self) -> StreamModel:
        """The model as one that streams.

        Raises:
            ConfigError: it needs whole recordings.
        """
        if self.model.streaming is None:
            raise ConfigError(
                f"expected a model that streams, got {self.model.name!r}, which needs whole"
                " recordings: load 'stream', or use `convert`"
            )
        return self.model.streaming

    def _blend(self, references: Sequence[Reference], fit: int = 0) -> Voice:
        waves: list[Tensor] = []
        voices = [self._one(reference, waves) for reference in references]
        if not voices:
            raise VoiceError(
                "expected at least one recording or voice file, got an empty list of references"
            )
        voice = (
            voices[0]
            if len(voices) == 1
            else Voice.mix({v: v.speech or UNKNOWN_SPEECH for v in voices}, blended_name(voices))
        )
        fittable = self._fittable
        if not fit or fittable is None or len(waves) < len(voices):
            return voice
        from rtvc.voices.fit import fit as fitted

        lowest = min(float(entry["bandwidth"]) for entry in voice.references)
        return fitted(fittable, voice, torch.cat(waves), lowest, steps=fit)

    def _one(self, reference: Reference, waves: list[Tensor]) -> Voice:
        """The voice of one reference; what it sounds like, (N,) at 24 kHz, is added to `waves` if
        it is a recording."""
        if isinstance(reference, Voice):
            return self._usable(reference)
        if isinstance(reference, str | os.PathLike) and Path(reference).suffix == ".voice":
            return self._one(Voice.load(reference), waves)
        speech = find_reference(reference)
        with torch.inference_mode():
            speech = compared(speech, self.model.styles, self.model.space, self.device)
            samples = F.pad(speech.samples, (0, -len(speech.samples) % HOP))
            acoustic, prosodic = self.model.styles(samples[None, None].to(self.device))
        waves.append(speech.samples)
        report = speech.report
        source = {"space": self.model.space, "references": [report.as_dict()]}
        return Voice(acoustic[0].clone(), prosodic[0].clone(), Path(report.path).stem, source)

    def _usable(self, voice: Voice) -> Voice:
        """The voice, without its fit if that was to other weights.

        Raises:
            VoiceError: it is none, or of another style space.
        """
        if not isinstance(voice, Voice):
            raise VoiceError(
                f"expected a Voice, got {checks.what(voice)}: make one with"
                " `vc.voice('reference.wav')`"
            )
        known = usable(voice, self.model.space, self.weights)
        if known is not voice and self.fittable:  # styles are all that other models take
            warnings.warn(
                f"{voice.name!r} was fitted to other weights, only its styles are used: make it"
                " again",
                stacklevel=3,
            )
        return known

    @property
    def fittable(self) -> bool:
        """Whether voices can be fitted to their recordings with this model."""
        return self._fittable is not None

    @property
    def _fittable(self) -> "StreamingModel | None":
        return None if self.model.streaming is None else self.model.streaming.fittable

    def fit_steps(self, asked: int | None = None) -> int:
        """Steps of fitting for `voice`: those asked for, else 0. A fit brings the voice closer to
        its reference and costs naturalness: 18 of 20 conversions sound worse by DistillMOS, by 0.27
        +- 0.12 on average."""
        return 0 if asked is None else asked

    @functools.cached_property
    def weights(self) -> str | None:
        """A name for the weights that fitted voices belong to; None for a model that fits none."""
        if (fittable := self._fittable) is None:
            return None
        from rtvc.voices.fit import weights_of

        return weights_of(fittable)


def listed(references: Reference | Sequence[Reference]) -> list[Reference]:
    """One reference or several, as a list."""
    if isinstance(references, str | os.PathLike | Voice | tuple) or not isinstance(
        references, Sequence
    ):
        return [references]
    return list(references)
