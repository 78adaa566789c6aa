"""Labelled speech: recordings with content, phonemes and F0 for every frame, one .npz an utterance.

A file holds audio int16 (N,) at 24 kHz, content float16 (512, T) and phon int16 (T,) at 40 Hz, f0 float32 (2T,) at 80 Hz in Hz (0
where unvoiced), confidence float32 (2T,) of the voicing, speaker, and bandwidth (twice the highest frequency present, in Hz).
F0 frame k speaks for the time (k + 0.5) / 80 s, content frame k begins at k / 40 s. Files of the teacher (`rtvc.teacher.corpus`)
have no speaker, bandwidth and confidence: their labels are exact, and every utterance has a voice of its own.
"""

import hashlib
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from rtvc.audio.mel import HOP, SAMPLE_RATE
from rtvc.data.manifest import remark
from rtvc.data.speech import Piece, Replacing
from rtvc.data.utterance import NPY_HEADER, Array, Voiced, read_arrays
from rtvc.errors import AudioError, TrainingError
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
    found = read_arrays(path)
    if missing := {"audio", "content", "phon", "f0"} - set(found):
        raise AudioError(f"{path} lacks {', '.join(sorted(missing))}: {', '.join(sorted(found))} came; make it again")
    audio, content, phonemes, f0 = (found[name] for name in ("audio", "content", "phon", "f0"))
    frames = len(phonemes)
    shapes = f"audio {audio.shape}, content {content.shape}, phon {phonemes.shape}, f0 {f0.shape}"
    if (
        audio.ndim != 1
        or content.shape != (CONTENT, frames)
        or f0.shape != (2 * frames,)
        or not frames
        or len(audio) < CONTENT_HOP * frames
    ):
        raise AudioError(f"{path} holds {shapes}; (N >= 600 T), ({CONTENT}, T), (T), (2T) were wanted: make it again")
    if not np.isfinite(content).all() or not np.isfinite(f0).all():
        raise AudioError(f"{path} holds labels that are not finite: make it again")
    if "speaker" not in found:
        f0 = np.where(f0 > LOWEST_F0, f0, 0).astype(np.float32)
        return Utterance(audio, content, phonemes, f0, (f0 > 0).astype(np.float32))
    confidence = found.get("confidence", (f0 > 0).astype(np.float32))
    bandwidth = float(found.get("bandwidth", SAMPLE_RATE))
    return Utterance(audio, content, phonemes, f0, confidence, str(found["speaker"]), bandwidth, exact=False)


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


class Labelled(Replacing):
    """The utterances of some folders. What cannot be read is remembered in `remarks` and replaced by another utterance.

    Args:
        folders: of .npz files, searched in depth.
        shortest: seconds; what is shorter is left out.
        held_out: utterances that `pick` never gives, chosen by a hash of their names; half of the teacher where there is any.
        kept: utterances kept in memory, about 1 MB each.
        temper: speakers are drawn with weights of (number of utterances)^temper, so that those with few are heard as well.
    """

    def __init__(self, folders: Sequence[Path], *, shortest: float = 1.5, held_out: int = 0, kept: int = 512, temper: float = 0.35) -> None:
        super().__init__()
        self.speakers: list[str] = []
        for path in (path for folder in folders for path in sorted(folder.rglob("*.npz")) if not path.name.startswith(".")):
            try:
                speaker, samples = _facts(path)
            except AudioError as error:
                self.lines.append(remark(path, str(error)))
                continue
            if samples < shortest * SAMPLE_RATE:
                self.lines.append(remark(path, f"lasts {samples / SAMPLE_RATE:.2f} s, at least {shortest:g} s are wanted"))
                continue
            self.files.append(path)
            self.speakers.append(speaker)
        if not self.files:
            places = ", ".join(map(str, folders))
            raise TrainingError(f"no labelled speech in {places}: `rtvc teacher generate` and `rtvc data label` make it")
        order = sorted(range(len(self.files)), key=lambda k: hashlib.blake2b(self.files[k].stem.encode()).digest())
        exact, real = ([k for k in order if (self.speakers[k] == TEACHER) == wanted] for wanted in (True, False))
        some = min(len(exact), held_out // 2 if real else held_out)
        self.held_out = [*exact[:some], *real[: held_out - some]]
        self.of_speaker: dict[str, list[int]] = {}
        for number in sorted(set(order) - set(self.held_out)):
            self.of_speaker.setdefault(self.speakers[number], []).append(number)
        if not self.of_speaker:
            raise TrainingError(f"all {len(self.files)} utterances are held out: lower data.held_out or add speech")
        self.real = sorted(self.of_speaker.keys() - {TEACHER})
        weights = np.array([len(self.of_speaker[speaker]) ** temper for speaker in self.real])
        self.shares = weights / weights.sum() if len(weights) else weights
        self._load = lru_cache(maxsize=kept)(lambda number: load_utterance(self.files[number]))

    def pick(self, rng: np.random.Generator, exact: bool) -> int:
        """The number of an utterance, the teacher's or of a real speaker; the other kind where the wanted one is missing."""
        exact = TEACHER in self.of_speaker if exact or not self.real else False
        speaker = TEACHER if exact else self.real[int(rng.choice(len(self.real), p=self.shares))]
        mine = self.of_speaker[speaker]
        return mine[int(rng.integers(len(mine)))]

    def beside(self, number: int, rng: np.random.Generator) -> int:
        """Another utterance in the same voice where there is one; of the teacher's, each has its own voice."""
        mine = [other for other in self.of_speaker.get(self.speakers[number], []) if other != number]
        return number if self.speakers[number] == TEACHER or not mine else mine[int(rng.integers(len(mine)))]

    def utterance(self, number: int, seed: int = 0) -> tuple[int, Utterance]:
        """An utterance and its number, or another one of the same kind, always the same, where it cannot be read.

        Raises:
            TrainingError: twenty in a row cannot be read.
        """
        return self.usable(number, seed, lambda k: (k, self._load(k)))

    def usable(self, number: int, seed: int, use: Callable[[int], T]) -> T:
        """`use` of an utterance, or of others in a fixed random order when it raises AudioError."""
        exact = self.speakers[number] == TEACHER
        return self.replaced(number, seed, use, lambda rng: self.pick(rng, exact))


def _facts(path: Path) -> tuple[str, int]:
    """Speaker and samples of a file, without reading the rest of it."""
    try:
        with np.load(path, allow_pickle=False) as file:
            speaker = str(file["speaker"]) if "speaker" in file.files else TEACHER
            samples = (file.zip.getinfo("audio.npy").file_size - NPY_HEADER) // 2
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise AudioError(f"cannot be read as labelled speech ({error}): make it again") from error
    return speaker, samples
