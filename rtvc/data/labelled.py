"""Labelled speech: recordings with content, phonemes and F0 for every frame, one .npz an utterance.

A file holds audio int16 (N,) at 24 kHz, content float16 (512, T) and phon int16 (T,) at 40 Hz, f0
float32 (2T,) at 80 Hz in Hz (0 where unvoiced), confidence float32 (2T,) of the voicing, speaker,
and bandwidth (twice the highest frequency present, in Hz). F0 frame k speaks for the time (k + 0.5)
/ 80 s, content frame k begins at k / 40 s. Files of the teacher (`rtvc.teacher.corpus`) have no
speaker, bandwidth and confidence: their labels are exact, and every utterance has a voice of its
own.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rtvc.audio.mel import HOP, SAMPLE_RATE
from rtvc.errors import AudioError
from rtvc.files import replacing

Array = NDArray[Any]

CONTENT = 512
"""Channels of content."""
TEACHER = "teacher"
"""The speaker of files that name none."""
CONTENT_HOP = 2 * HOP
SURE, UNSURE = 0.85, 0.4
"""Confidence above which a frame is voiced, and below which it is unvoiced; what lies between is
not known."""
NPY_HEADER = 128
"""Bytes before the samples of a one-dimensional array."""
LOWEST_F0 = 45.0
"""Hz, below which the teacher's F0 curve means unvoiced."""


@dataclass(frozen=True, eq=False)
class Utterance:
    """One recording and its labels, as in a file; see the head of this module."""

    audio: Array
    content: Array
    phonemes: Array
    f0: Array
    confidence: Array
    speaker: str = TEACHER
    bandwidth: float = SAMPLE_RATE
    exact: bool = True
    """Whether the teacher made it."""

    def melody(self, seconds: Array, highest: float = np.inf) -> tuple[Array, Array]:
        """Log F0 and voicing 0 or 1 at the given times, (K,) float32 each; F0 from `highest` Hz on
        is not believed."""
        voiced = (self.f0 > 0) & (self.f0 < highest)
        times = (np.arange(len(self.f0)) + 0.5) * HOP / SAMPLE_RATE
        if voiced.sum() < 2:
            return np.full(len(seconds), 5.0, np.float32), np.zeros(len(seconds), np.float32)
        log_f0 = np.interp(seconds, times[voiced], np.log(self.f0[voiced]))
        return log_f0.astype(np.float32), (np.interp(seconds, times, voiced) > 0.5).astype(
            np.float32
        )

    def voicing(self, seconds: Array) -> tuple[Array, Array]:
        """Voicing 0 or 1 at the given times, and whether it is known, (K,) float32 each."""
        times = (np.arange(len(self.f0)) + 0.5) * HOP / SAMPLE_RATE
        confidence = np.interp(seconds, times, self.confidence)
        voiced = (confidence > SURE) & ((self.f0 > 0).sum() >= 2)
        return voiced.astype(np.float32), (voiced | (confidence < UNSURE)).astype(np.float32)


def save_utterance(path: Path, utterance: Utterance) -> None:
    """Writes a file, whole or not at all."""
    with replacing(path) as fresh:
        np.savez(
            fresh,
            audio=utterance.audio.astype(np.int16),
            content=utterance.content.astype(np.float16),
            phon=utterance.phonemes.astype(np.int16),
            f0=utterance.f0.astype(np.float32),
            confidence=utterance.confidence.astype(np.float32),
            speaker=np.array(utterance.speaker),
            bandwidth=np.float32(utterance.bandwidth),
        )


def load_utterance(path: Path) -> Utterance:
    """Reads a file of ours or of the teacher.

    Raises:
        AudioError: it cannot be read, lacks something, or its parts do not fit together.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise AudioError(
            f"{path} cannot be read as labelled speech ({error}): make it again"
        ) from error
    if missing := {"audio", "content", "phon", "f0"} - set(arrays):
        raise AudioError(
            f"{path}: expected {', '.join(sorted(missing))} beside {', '.join(sorted(arrays))}, got"
            " none: make it again"
        )
    audio, content, phonemes, f0 = (arrays[name] for name in ("audio", "content", "phon", "f0"))
    frames = len(phonemes)
    shapes = f"audio {audio.shape}, content {content.shape}, phon {phonemes.shape}, f0 {f0.shape}"
    if (
        audio.ndim != 1
        or content.shape != (CONTENT, frames)
        or f0.shape != (2 * frames,)
        or not frames
        or len(audio) < CONTENT_HOP * frames
    ):
        raise AudioError(
            f"{path}: expected (N >= 600 T), ({CONTENT}, T), (T), (2T), got {shapes}: make it again"
        )
    if not np.isfinite(content).all() or not np.isfinite(f0).all():
        raise AudioError(f"{path} holds labels that are not finite: make it again")
    if "speaker" not in arrays:
        f0 = np.where(f0 > LOWEST_F0, f0, 0).astype(np.float32)
        return Utterance(audio, content, phonemes, f0, (f0 > 0).astype(np.float32))
    confidence = arrays.get("confidence", (f0 > 0).astype(np.float32))
    bandwidth = float(arrays.get("bandwidth", SAMPLE_RATE))
    return Utterance(
        audio, content, phonemes, f0, confidence, str(arrays["speaker"]), bandwidth, exact=False
    )


@dataclass(frozen=True, eq=False)
class Cut:
    """A piece of an utterance, played at another speed: pitch, formants and tempo move together,
    which makes a new speaker."""

    utterance: Utterance
    start: int
    """Sample at which it begins, a multiple of CONTENT_HOP."""
    speed: float
    frames: int
    """Length in frames of HOP samples, after the change of speed."""

    @classmethod
    def draw(
        cls, utterance: Utterance, frames: int, speed: float, rng: np.random.Generator
    ) -> "Cut":
        """A random piece; silence follows an utterance that is shorter."""
        spare = len(utterance.audio) - cls.needed(frames, speed)
        return cls(
            utterance,
            int(rng.integers(0, max(1, spare // CONTENT_HOP + 1))) * CONTENT_HOP,
            speed,
            frames,
        )

    @staticmethod
    def needed(frames: int, speed: float) -> int:
        """Samples of the utterance that a piece reads."""
        return int(frames * HOP * speed) + 2 * CONTENT_HOP

    def wave(self) -> Tensor:
        """(frames * HOP,) float32 at 24 kHz, linearly interpolated."""
        samples = self.frames * HOP
        x = torch.from_numpy(
            self.utterance.audio[
                self.start : self.start + self.needed(self.frames, self.speed)
            ].astype(np.float32)
            / 32768
        )
        x = F.pad(x, (0, max(0, self.needed(self.frames, self.speed) - len(x))))
        if self.speed == 1:
            return x[:samples]
        position = torch.arange(samples, dtype=torch.float64) * self.speed
        before = position.long()
        share = (position - before).float()
        return x[before] * (1 - share) + x[before + 1] * share

    def frame_numbers(self) -> Array:
        """The content frame under the centre of every mel frame, (frames,)."""
        position = (np.arange(self.frames) * HOP * self.speed + self.start) / CONTENT_HOP
        return np.minimum(position.astype(np.int64), len(self.utterance.phonemes) - 1)

    def content(self) -> Tensor:
        """(512, frames) float32."""
        return torch.from_numpy(self.utterance.content[:, self.frame_numbers()].astype(np.float32))

    def phonemes(self) -> Tensor:
        """(frames,) int64."""
        return torch.from_numpy(self.utterance.phonemes[self.frame_numbers()].astype(np.int64))

    def seconds(self, offset: int) -> Array:
        """Times in the utterance of the points `offset` samples (of the piece) after the centres of
        the mel frames, (frames,)."""
        seconds: Array = (
            (np.arange(self.frames) * HOP + offset) * self.speed + self.start
        ) / SAMPLE_RATE
        return seconds

    def melody(self, offset: int, highest: float = np.inf) -> tuple[Tensor, Tensor]:
        """Log F0 as heard in the piece, and voicing, (frames,) each, at the times of `seconds`."""
        log_f0, voiced = self.utterance.melody(self.seconds(offset), highest)
        return torch.from_numpy(log_f0) + float(np.log(self.speed)), torch.from_numpy(voiced)

    def cutoff(self) -> float:
        """Hz up to which the piece holds what was truly recorded; above half the sample rate where
        all of it is."""
        half = SAMPLE_RATE / 2 + 1
        if self.utterance.bandwidth >= SAMPLE_RATE:
            return half * min(1.0, self.speed)
        return min(self.utterance.bandwidth / 2 * self.speed - 400.0, half)
