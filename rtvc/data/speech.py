"""Pieces of labelled speech for training: which recording comes next, and which part of it at which
speed."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rtvc.arrays import read_array
from rtvc.audio.mel import HOP, SAMPLE_RATE
from rtvc.data.manifest import remark
from rtvc.data.order import Replacing
from rtvc.data.utterance import Array, Utterance, copies_of, facts_of, load_utterance
from rtvc.errors import AudioError, TrainingError

T = TypeVar("T")


class Recording(Protocol):
    """What a piece needs of an utterance."""

    @property
    def audio(self) -> Array:
        """(N,) int16 at 24 kHz."""
        ...

    @property
    def bandwidth(self) -> float:
        """Twice the highest frequency present, in Hz."""
        ...

    def melody(self, seconds: Array, highest: float = ...) -> tuple[Array, Array]:
        """As `rtvc.data.utterance.Voiced`."""
        ...


U = TypeVar("U", bound=Recording)


@dataclass(frozen=True, eq=False)
class Piece(Generic[U]):
    """A piece of an utterance played at another speed: pitch, formants and tempo move together,
    which makes a new speaker."""

    STEP: ClassVar[int] = 1
    """Samples of the utterance whose multiple its beginning is."""

    utterance: U
    start: int
    """Sample of the utterance at which it begins."""
    speed: float
    frames: int
    """Length in frames of HOP samples, after the change of speed."""

    @classmethod
    def draw(cls, utterance: U, frames: int, speed: float, rng: np.random.Generator) -> Self:
        """A random piece; silence follows an utterance that is shorter."""
        spare = len(utterance.audio) - cls.needed(frames, speed)
        return cls(
            utterance, int(rng.integers(0, max(1, spare // cls.STEP + 1))) * cls.STEP, speed, frames
        )

    @classmethod
    def needed(cls, frames: int, speed: float) -> int:
        """Samples of the utterance that a piece reads."""
        return int(frames * HOP * speed) + 2 * cls.STEP

    def wave(self) -> Tensor:
        """(frames * HOP,) float32 at 24 kHz, linearly interpolated."""
        samples, needed = self.frames * HOP, self.needed(self.frames, self.speed)
        audio = self.utterance.audio[self.start : self.start + needed]
        x = torch.from_numpy(audio.astype(np.float32) / 32768)
        x = F.pad(x, (0, needed - len(x)))
        if self.speed == 1:
            return x[:samples]
        position = torch.arange(samples, dtype=torch.float64) * self.speed
        before = position.long()
        share = (position - before).float()
        return x[before] * (1 - share) + x[before + 1] * share

    def seconds(self, offset: int) -> Array:
        """Times in the utterance of the points `offset` samples (of the piece) after the beginnings
        of its frames, (frames,)."""
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


class Cut(Piece[Utterance]):
    """A piece of an utterance that is labelled with units."""

    def units(self, offset: int) -> Tensor:
        """Unit numbers at the times of `seconds`, (L, frames) int64."""
        return torch.from_numpy(
            self.utterance.units[:, self.utterance.frames_at(self.seconds(offset))].astype(np.int64)
        )

    def phonemes(self, offset: int) -> Tensor:
        """Phonemes at the times of `seconds`, (frames,) int64."""
        return torch.from_numpy(
            self.utterance.phonemes[self.utterance.frames_at(self.seconds(offset))].astype(np.int64)
        )

    def within(self, offset: int) -> Tensor:
        """Whether the utterance still lasts at the times of `seconds`, (frames,) bool."""
        return torch.from_numpy(self.seconds(offset) < len(self.utterance.audio) / SAMPLE_RATE)


class Speech(Replacing):
    """The utterances of some folders. What cannot be read is remembered in `remarks` and replaced
    by another utterance.

    Args:
        folders: of .npz files, searched in depth.
        shares: how much of what is drawn comes of each folder; None takes equal shares.
        shortest: seconds; what is shorter is left out.
        held_out: utterances that `pick` never gives: all of some speakers, chosen by a hash of
            their names, of every folder as many.
        kept: utterances kept in memory, about 0.5 MB each.
        temper: within a folder speakers are drawn with weights of (number of utterances)^temper.
        with_text: leave out what has no transcript.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        shares: Sequence[float] | None = None,
        *,
        shortest: float = 1.5,
        held_out: int = 0,
        kept: int = 512,
        temper: float = 0.5,
        with_text: bool = False,
    ) -> None:
        super().__init__()
        self._copies: dict[int, list[Path]] = {}
        self.speakers: list[str] = []
        self.held_out: list[int] = []
        self.of_speaker: list[dict[str, list[int]]] = []
        for folder in folders:
            mine = self._scan(folder, shortest, with_text)
            share = -(-held_out // len(folders))
            kept_back = 0
            for speaker in sorted(mine, key=lambda name: hashlib.blake2b(name.encode()).digest()):
                if kept_back >= share or len(mine) == 1:
                    break
                some = mine.pop(speaker)
                self.held_out += some[: share - kept_back]
                kept_back += len(some)
            self.of_speaker.append(mine)
        if not any(self.of_speaker):
            raise TrainingError(
                f"expected labelled speech in {', '.join(map(str, folders))}, got none: `rtvc data"
                " label` makes it"
            )
        given = np.array(shares if shares is not None else [1.0] * len(folders), np.float64)
        if len(given) != len(folders):
            raise TrainingError(
                f"expected a share for each of {len(folders)} folders, got {len(given)}"
            )
        given = given * [bool(mine) for mine in self.of_speaker]
        self.shares = given / given.sum()
        self.names = [sorted(mine) for mine in self.of_speaker]
        weights = [
            np.array([len(mine[s]) ** temper for s in names])
            for mine, names in zip(self.of_speaker, self.names, strict=True)
        ]
        self.weights = [w / w.sum() if len(w) else w for w in weights]
        self.load = lru_cache(maxsize=kept)(lambda number: load_utterance(self.files[number]))

    def _scan(self, folder: Path, shortest: float, with_text: bool) -> dict[str, list[int]]:
        """Speaker -> numbers of the utterances of a folder."""
        groups: dict[str, list[int]] = {}
        for path in sorted(path for path in folder.rglob("*.npz") if not path.name.startswith(".")):
            try:
                speaker, samples, text = facts_of(path)
            except AudioError as error:
                self.lines.append(remark(path, str(error)))
                continue
            if samples >= shortest * SAMPLE_RATE and (text or not with_text):
                groups.setdefault(speaker, []).append(len(self.files))
                self.files.append(path)
                self.speakers.append(speaker)
        return groups

    def pick(self, rng: np.random.Generator) -> int:
        """The number of an utterance."""
        place = int(rng.choice(len(self.shares), p=self.shares))
        names = self.names[place]
        mine = self.of_speaker[place][names[int(rng.choice(len(names), p=self.weights[place]))]]
        return mine[int(rng.integers(len(mine)))]

    def copy_of(self, number: int, rng: np.random.Generator) -> Array | None:
        """The same words in another voice, (N,) int16, where there is a copy
        (`rtvc.train.material.copies`)."""
        if number not in self._copies:
            self._copies[number] = copies_of(self.files[number])
        paths = self._copies[number]
        return read_array(paths[int(rng.integers(len(paths)))]) if paths else None

    def beside(self, number: int, rng: np.random.Generator) -> int:
        """Another utterance of the same speaker where there is one, else the same."""
        speaker = self.speakers[number]
        mine = next(
            (place[speaker] for place in self.of_speaker if number in place.get(speaker, ())),
            [number],
        )
        others = [other for other in mine if other != number]
        return others[int(rng.integers(len(others)))] if others else number

    def instead(self, number: int, rng: np.random.Generator) -> int:
        """Any other, as `pick` gives them."""
        return self.pick(rng)
