"""Stepping over recordings that turn out to be corrupt while a run goes on."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from rtvc.data.manifest import remark
from rtvc.data.seeds import derive
from rtvc.errors import AudioError, TrainingError

T = TypeVar("T")


class Replacing:
    """What cannot be read is remembered in `remarks` and replaced by another recording.

    Attributes:
        files: of the recordings, by number.
        bad: numbers of those that cannot be read.
        lines: remarks that nobody has asked for yet.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.bad: set[int] = set()
        self.lock = threading.Lock()
        self.files: list[Path] = []

    def replaced(
        self,
        number: int,
        seed: int,
        use: Callable[[int], T],
        pick: Callable[[np.random.Generator], int],
    ) -> T:
        """`use(number)`, or of others in a fixed random order when it raises AudioError.

        Raises:
            TrainingError: twenty in a row cannot be used.
        """
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
            number = pick(rng)
        raise TrainingError(
            "twenty recordings in a row cannot be used; the last:"
            f" {self.lines[-1] if self.lines else self.files[number]}"
        )

    def remarks(self) -> list[str]:
        """Files that were refused since the last call: path and reason."""
        with self.lock:
            lines, self.lines = self.lines, []
        return lines
