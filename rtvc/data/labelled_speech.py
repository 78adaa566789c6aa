"""Folders of labelled speech as a stage draws from them: who speaks, how often, and what is held
back."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np

from rtvc.arrays import opened_arrays
from rtvc.audio.mel import SAMPLE_RATE
from rtvc.data.labelled import TEACHER, Utterance, load_utterance
from rtvc.data.manifest import remark
from rtvc.data.order import Replacing
from rtvc.errors import AudioError, TrainingError

T = TypeVar("T")


class Labelled(Replacing):
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
        super().__init__()
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
            [k for k in order if (self.speakers[k] == TEACHER) == by_teacher]
            for by_teacher in (True, False)
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
        self.load = lru_cache(maxsize=kept)(lambda number: load_utterance(self.files[number]))

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
        return self.usable(number, seed, lambda k: (k, self.load(k)))

    def instead(self, number: int, rng: np.random.Generator) -> int:
        """One of the same kind: the teacher's, or a real speaker's."""
        return self.pick(rng, self.speakers[number] == TEACHER)


def _facts(path: Path) -> tuple[str, int]:
    """Speaker and samples of a file, without reading the rest of it."""
    with opened_arrays(path) as arrays:
        (samples,) = arrays.shape("audio")
        return str(arrays["speaker"]) if "speaker" in arrays.names else TEACHER, samples
