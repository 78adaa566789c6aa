"""Which recordings make up batch number `index`: a function of (seed, index), so that a run's
position is its step number, and what stands in for a recording that turns out to be corrupt."""

import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from rtvc.data.manifest import remark
from rtvc.data.seeds import derive, numpy_generator
from rtvc.errors import AudioError, TrainingError

T = TypeVar("T")


class Order:
    """Batches of positions in a list of recordings.

    With `balance` 0 every recording comes once an epoch, in batches of similar length. With
    `balance` b > 0 recordings are drawn with weights of (seconds of the speaker)^-b: at 1 every
    speaker is heard equally often.

    Args:
        seconds: length of each recording.
        speakers: its speaker.
        batch: recordings a batch.
        seed: of the run.
        balance: see above, 0 to 1.
        bucket: batches whose recordings are sorted by length together; 1 does not sort.
    """

    def __init__(
        self,
        seconds: Sequence[float],
        speakers: Sequence[str],
        batch: int,
        seed: int,
        balance: float = 0.0,
        bucket: int = 16,
    ) -> None:
        self.seconds, self.batch, self.seed, self.balance, self.bucket = (
            np.asarray(seconds, float),
            batch,
            seed,
            balance,
            bucket,
        )
        self.cumulative = np.cumsum(self._weights(speakers)) if balance else None
        self.epoch = lru_cache(maxsize=3)(self._epoch)

    def _weights(self, speakers: Sequence[str]) -> npt.NDArray[np.float64]:
        lengths = np.maximum(self.seconds, 0.1)
        totals: dict[str, float] = {}
        for speaker, length in zip(speakers, lengths, strict=True):
            totals[speaker] = totals.get(speaker, 0.0) + float(length)
        # Longer recordings are drawn more often, so that every second of a speaker is heard equally
        # often.
        shares = [
            float(length) * totals[speaker] ** -self.balance
            for speaker, length in zip(speakers, lengths, strict=True)
        ]
        weights: npt.NDArray[np.float64] = np.array(shares)
        weights /= weights.sum()
        return weights

    def __call__(self, index: int) -> list[int]:
        """Positions of the recordings of one batch."""
        if self.cumulative is not None:
            draws = numpy_generator(self.seed, "draw", index).random(self.batch)
            return [
                int(k)
                for k in np.minimum(np.searchsorted(self.cumulative, draws), len(self.seconds) - 1)
            ]
        batches = -(-len(self.seconds) // self.batch)
        epoch, place = divmod(index, batches)
        return list(self.epoch(epoch)[place])

    def _epoch(self, epoch: int) -> list[tuple[int, ...]]:
        """The batches of one epoch; the last is filled up from the epoch's beginning, so that all
        are of one size."""
        rng = numpy_generator(self.seed, "epoch", epoch)
        order = rng.permutation(len(self.seconds))
        order = np.resize(order, -(-len(order) // self.batch) * self.batch)
        span = self.batch * self.bucket
        if self.bucket > 1:
            order = np.concatenate(
                [
                    part[np.argsort(self.seconds[part], kind="stable")]
                    for part in np.split(order, range(span, len(order), span))
                ]
            )
        batches = order.reshape(-1, self.batch)
        return [tuple(int(k) for k in batches[b]) for b in rng.permutation(len(batches))]


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

    def instead(self, number: int, rng: np.random.Generator) -> int:
        """The number of a recording that may stand in for another."""
        return int(rng.integers(len(self.files)))

    def usable(self, number: int, seed: int, use: Callable[[int], T]) -> T:
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
            number = self.instead(number, rng)
        raise TrainingError(
            "twenty recordings in a row cannot be used; the last:"
            f" {self.lines[-1] if self.lines else self.files[number]}"
        )

    def remarks(self) -> list[str]:
        """Files that were refused since the last call: path and reason."""
        with self.lock:
            lines, self.lines = self.lines, []
        return lines
