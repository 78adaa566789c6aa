"""Speech labelled with units: a recording and what it says, frame by frame; one .npz an utterance.

| array | shape | what |
| --- | --- | --- |
| audio | (N,) int16 | at 24 kHz |
| units | (L, T) uint16 | at 50 Hz: clusters of L layers (`rtvc.train.material.units`) |
| phonemes | (T,) int16 | at 50 Hz: `rtvc.data.symbols`; UNKNOWN where no transcript says |
| f0 | (K,) float32 | at 80 Hz, in Hz; 0 where it is unvoiced or not sure |
| confidence | (K,) float16 | of the voicing, 0..1 |
| speaker, bandwidth, text | scalars | bandwidth is twice the highest frequency present, in Hz |

Frame k of units speaks for the time k / 50 s, of F0 for (k + 0.5) / 80 s.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtvc.arrays import opened_arrays, read_arrays
from rtvc.audio.mel import HOP, SAMPLE_RATE
from rtvc.errors import AudioError
from rtvc.files import replacing

Array = NDArray[Any]

UNIT_RATE = 50
"""Frames of units and phonemes a second."""
F0_RATE = SAMPLE_RATE / HOP
"""Frames of F0 a second."""
UNKNOWN = -1
"""The phoneme of frames of which none is known; losses skip it."""
SURE, UNSURE = 0.85, 0.4
"""Confidence above which a frame is voiced, and below which it is unvoiced; what lies between is
not known."""
COPIES = "copies"
"""Folder beside the files: the same words in other voices, (N,) int16 each; an empty file stands
for a copy that said something else."""


class Voiced:
    """What every labelled recording tells of its F0, whatever else its labels are."""

    f0: Array  # (K,) at 80 Hz
    confidence: Array  # (K,)

    def melody(self, seconds: Array, highest: float = np.inf) -> tuple[Array, Array]:
        """Log F0 and voicing 0 or 1 at the given times, (K,) float32 each; F0 from `highest` Hz on
        is not believed."""
        voiced = (self.f0 > 0) & (self.f0 < highest)
        times = (np.arange(len(self.f0)) + 0.5) / F0_RATE
        if voiced.sum() < 2:
            return np.full(len(seconds), 5.0, np.float32), np.zeros(len(seconds), np.float32)
        log_f0 = np.interp(seconds, times[voiced], np.log(self.f0[voiced]))
        return log_f0.astype(np.float32), (np.interp(seconds, times, voiced) > 0.5).astype(
            np.float32
        )

    def voicing(self, seconds: Array) -> tuple[Array, Array]:
        """Voicing 0 or 1 at the given times, and whether it is known, (K,) float32 each."""
        times = (np.arange(len(self.f0)) + 0.5) / F0_RATE
        confidence = np.interp(seconds, times, self.confidence)
        voiced = (confidence > SURE) & ((self.f0 > 0).sum() >= 2)
        return voiced.astype(np.float32), (voiced | (confidence < UNSURE)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Utterance(Voiced):
    """One recording and its labels, as in a file; see the head of this module."""

    audio: Array
    units: Array
    phonemes: Array
    f0: Array
    confidence: Array
    speaker: str
    bandwidth: float = float(SAMPLE_RATE)
    text: str = ""

    def frames_at(self, seconds: Array) -> Array:
        """The nearest unit frame at the given times, (K,) int64; the last one beyond the end."""
        frames = np.round(seconds * UNIT_RATE).astype(np.int64)
        clipped: Array = np.clip(frames, 0, self.units.shape[1] - 1)
        return clipped

    def labels(self) -> dict[str, Any]:
        """Everything but the audio, as files hold it."""
        return {
            "units": self.units.astype(np.uint16),
            "phonemes": self.phonemes.astype(np.int16),
            "f0": self.f0.astype(np.float32),
            "confidence": self.confidence.astype(np.float16),
            "speaker": np.array(self.speaker),
            "bandwidth": np.array(self.bandwidth, np.float32),
            "text": np.array(self.text),
        }

    @classmethod
    def of(cls, audio: Array, labels: Mapping[str, Array]) -> "Utterance":
        """What `labels` gave, with its audio (N,) int16."""
        units, phonemes, f0, confidence = (
            labels[name] for name in ("units", "phonemes", "f0", "confidence")
        )
        speaker, bandwidth, text = (
            str(labels["speaker"]),
            float(labels["bandwidth"]),
            str(labels["text"]),
        )
        return cls(
            audio, units, phonemes, f0, confidence.astype(np.float32), speaker, bandwidth, text
        )


def save_utterance(path: Path, utterance: Utterance) -> None:
    """Writes a file, whole or not at all."""
    with replacing(path) as fresh:
        np.savez(fresh, audio=utterance.audio.astype(np.int16), **utterance.labels())


def load_utterance(path: Path) -> Utterance:
    """Reads what `save_utterance` wrote.

    Raises:
        AudioError: it cannot be read, lacks something, or its parts do not fit together.
    """
    parts = read_arrays(path)
    needed = {"audio", "units", "phonemes", "f0", "confidence", "speaker", "bandwidth", "text"}
    if missing := needed - set(parts):
        raise AudioError(f"{path} lacks {', '.join(sorted(missing))}: label it again")
    audio, units, phonemes, f0 = (parts[name] for name in ("audio", "units", "phonemes", "f0"))
    fits = audio.ndim == f0.ndim == 1 and units.ndim == 2 and phonemes.shape == units.shape[1:]
    if not fits or not units.shape[1] or not len(audio):
        shapes = (
            f"audio {audio.shape}, units {units.shape}, phonemes {phonemes.shape}, f0 {f0.shape}"
        )
        raise AudioError(f"{path}: expected (N), (L, T), (T), (K), got {shapes}: label it again")
    if not np.isfinite(f0).all():
        raise AudioError(f"{path} holds F0 that is not finite: label it again")
    return Utterance.of(audio, parts)


def facts_of(path: Path) -> tuple[str, int, bool]:
    """Speaker, samples, and whether there is a transcript, without reading the rest of a file.

    Raises:
        AudioError: it is not a file of labelled speech.
    """
    with opened_arrays(path) as arrays:
        (samples,) = arrays.shape("audio")
        return str(arrays["speaker"]), samples, bool(str(arrays["text"]))


def copy_path(utterance: Path, number: int) -> Path:
    """Where copy `number`, counted from 1, of an utterance's file is."""
    return utterance.parent / COPIES / f"{utterance.stem}.{number}.npy"


def copies_of(utterance: Path) -> list[Path]:
    """The copies that there are of an utterance's file; empty files stand for those that did not
    agree."""
    copies = (utterance.parent / COPIES).glob(f"{utterance.stem}.*.npy")
    return sorted(path for path in copies if path.stat().st_size)
