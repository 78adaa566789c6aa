"""Labelled speech: recordings with content, phonemes and F0 for every frame, one .npz an utterance.

A file holds audio int16 (N,) at 24 kHz, content float16 (512, T) and phon int16 (T,) at 40 Hz, f0
float32 (2T,) at 80 Hz in Hz (0 where unvoiced), confidence float32 (2T,) of the voicing, speaker,
and bandwidth (twice the highest frequency present, in Hz). F0 frame k speaks for the time (k + 0.5)
/ 80 s, content frame k begins at k / 40 s. Files of the teacher (`rtvc.teacher.corpus`) have no
speaker, bandwidth and confidence: their labels are exact, and every utterance has a voice of its
own.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from rtvc.arrays import read_arrays
from rtvc.audio.mel import HOP, SAMPLE_RATE
from rtvc.data.speech import Piece
from rtvc.data.utterance import Array, Voiced
from rtvc.errors import AudioError
from rtvc.files import replacing

T = TypeVar("T")

CONTENT = 512
"""Channels of content."""
TEACHER = "teacher"
"""The speaker of files that name none."""
CONTENT_HOP = 2 * HOP
LOWEST_F0 = 45.0
"""Hz, below which the teacher's F0 curve means unvoiced."""


@dataclass(frozen=True, eq=False)
class Utterance(Voiced):
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
    arrays = read_arrays(path)
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


class Cut(Piece[Utterance]):
    """A piece of an utterance that begins with a frame of its content."""

    STEP = CONTENT_HOP

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
