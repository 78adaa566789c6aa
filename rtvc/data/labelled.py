"""Labelled speech: recordings with content, phonemes and F0 for every frame, one .npz an utterance.

A file holds audio int16 (N,) at 24 kHz, content float16 (512, T) and phon int16 (T,) at 40 Hz, f0
float32 (2T,) at 80 Hz in Hz (0 where unvoiced), confidence float32 (2T,) of the voicing, speaker,
and bandwidth (twice the highest frequency present, in Hz). F0 frame k speaks for the time (k + 0.5)
/ 80 s, content frame k begins at k / 40 s. Files of the teacher (`rtvc.teacher.corpus`) have no
speaker, bandwidth and confidence: their labels are exact, and every utterance has a voice of its
own.
"""

import hashlib
import threading
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rtvc.audio.mel import HOP, SAMPLE_RATE
from rtvc.data.manifest import remark
from rtvc.data.seeds import derive
from rtvc.errors import AudioError, TrainingError
from rtvc.files import replacing

T = TypeVar("T")
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
            found = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise AudioError(
            f"{path} cannot be read as labelled speech ({error}): make it again"
        ) from error
    if missing := {"audio", "content", "phon", "f0"} - set(found):
        raise AudioError(
            f"{path}: expected {', '.join(sorted(missing))} beside {', '.join(sorted(found))}, got"
            " none: make it again"
        )
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
        raise AudioError(
            f"{path}: expected (N >= 600 T), ({CONTENT}, T), (T), (2T), got {shapes}: make it again"
        )
    if not np.isfinite(content).all() or not np.isfinite(f0).all():
        raise AudioError(f"{path} holds labels that are not finite: make it again")
    if "speaker" not in found:
        f0 = np.where(f0 > LOWEST_F0, f0, 0).astype(np.float32)
        return Utterance(audio, content, phonemes, f0, (f0 > 0).astype(np.float32))
    confidence = found.get("confidence", (f0 > 0).astype(np.float32))
    bandwidth = float(found.get("bandwidth", SAMPLE_RATE))
    return Utterance(
        audio, content, phonemes, f0, confidence, str(found["speaker"]), bandwidth, exact=False
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


class Labelled:
    """The utterances of some folders. What cannot be read is remembered in `remarks` and replaced
    by another utterance.

    Args:
        folders: of .npz files, searched in depth.
        shortest: seconds; what is shorter is left out.
        held_out: utterances that `pick` never gives, chosen by a hash of their names; half of the
            teacher where there is any.
        kept: utterances kept in memory, about 1 MB each.
        temper: speakers are drawn with weights of (number of utterances)^temper, so that those with
            few are heard as well.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        *,
        shortest: float = 1.5,
        held_out: int = 0,
        kept: int = 512,
        temper: float = 0.35,
    ) -> None:
        self.lines: list[str] = []
        self.bad: set[int] = set()
        self.lock = threading.Lock()
        self.files: list[Path] = []
        self.speakers: list[str] = []
        for path in (
            path
            for folder in folders
            for path in sorted(folder.rglob("*.npz"))
            if not path.name.startswith(".")
        ):
            try:
                speaker, samples = _facts(path)
            except AudioError as error:
                self.lines.append(remark(path, str(error)))
                continue
            if samples < shortest * SAMPLE_RATE:
                self.lines.append(
                    remark(
                        path,
                        f"lasts {samples / SAMPLE_RATE:.2f} s, at least {shortest:g} s are wanted",
                    )
                )
                continue
            self.files.append(path)
            self.speakers.append(speaker)
        if not self.files:
            places = ", ".join(map(str, folders))
            raise TrainingError(
                f"no labelled speech in {places}: `rtvc teacher generate` and `rtvc data label`"
                " make it"
            )
        order = sorted(
            range(len(self.files)),
            key=lambda k: hashlib.blake2b(self.files[k].stem.encode()).digest(),
        )
        exact, real = (
            [k for k in order if (self.speakers[k] == TEACHER) == wanted]
            for wanted in (True, False)
        )
        some = min(len(exact), held_out // 2 if real else held_out)
        self.held_out = [*exact[:some], *real[: held_out - some]]
        self.of_speaker: dict[str, list[int]] = {}
        for number in sorted(set(order) - set(self.held_out)):
            self.of_speaker.setdefault(self.speakers[number], []).append(number)
        if not self.of_speaker:
            raise TrainingError(
                f"all {len(self.files)} utterances are held out: lower data.held_out or add speech"
            )
        self.real = sorted(self.of_speaker.keys() - {TEACHER})
        weights = np.array([len(self.of_speaker[speaker]) ** temper for speaker in self.real])
        self.shares = weights / weights.sum() if len(weights) else weights
        self._load = lru_cache(maxsize=kept)(lambda number: load_utterance(self.files[number]))

    def pick(self, rng: np.random.Generator, exact: bool) -> int:
        """The number of an utterance, the teacher's or of a real speaker; the other kind where the
        wanted one is missing."""
        exact = TEACHER in self.of_speaker if exact or not self.real else False
        speaker = TEACHER if exact else self.real[int(rng.choice(len(self.real), p=self.shares))]
        mine = self.of_speaker[speaker]
        return mine[int(rng.integers(len(mine)))]

    def beside(self, number: int, rng: np.random.Generator) -> int:
        """Another utterance in the same voice where there is one; of the teacher's, each has its
        own voice."""
        mine = [
            other for other in self.of_speaker.get(self.speakers[number], []) if other != number
        ]
        return (
            number
            if self.speakers[number] == TEACHER or not mine
            else mine[int(rng.integers(len(mine)))]
        )

    def utterance(self, number: int, seed: int = 0) -> tuple[int, Utterance]:
        """An utterance and its number, or another one of the same kind, always the same, where it
        cannot be read.

        Raises:
            TrainingError: twenty in a row cannot be read.
        """
        return self.usable(number, seed, lambda k: (k, self._load(k)))

    def usable(self, number: int, seed: int, use: Callable[[int], T]) -> T:
        """`use` of an utterance, or of others in a fixed random order when it raises AudioError."""
        exact = self.speakers[number] == TEACHER
        rng = np.random.default_rng(derive(seed, "instead", number))
        for _ in range(20):
            if number not in self.bad:
                try:
                    return use(number)
                except AudioError as error:
                    with self.lock:
                        if number not in self.bad:
                            self.bad.add(number)
                            self.lines.append(remark(self.files[number], str(error)))
            number = self.pick(rng, exact)
        raise TrainingError(
            f"twenty utterances in a row cannot be used; the last was {self.files[number]}"
        )

    def remarks(self) -> list[str]:
        """Files that were refused since the last call: path and reason."""
        with self.lock:
            lines, self.lines = self.lines, []
        return lines


def _facts(path: Path) -> tuple[str, int]:
    """Speaker and samples of a file, without reading the rest of it."""
    try:
        with np.load(path, allow_pickle=False) as file:
            speaker = str(file["speaker"]) if "speaker" in file.files else TEACHER
            samples = (file.zip.getinfo("audio.npy").file_size - NPY_HEADER) // 2
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise AudioError(f"cannot be read as labelled speech ({error}): make it again") from error
    return speaker, samples
