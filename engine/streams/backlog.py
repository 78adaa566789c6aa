"""Bounded lag: every sample knows when it was captured, and audio that has become stale is dropped
with a short fade.

A queue that only ever grows after an overload is the oldest complaint about live converters. Here
the consumer says what time it is; when the oldest queued sample is older than `limit`, the queue is
cut so that its oldest sample is `nominal` seconds old. The cut is a cross-fade, every dropped
sample is counted, and nothing is ever repeated.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from rtvc.audio.samples import Samples
from rtvc.errors import EngineError

FADE_S = 0.005
"""Length of the cross-fade at a cut."""
RECENT = 256
"""How many of the latest drops are remembered one by one; their total is always exact."""


@dataclass(frozen=True)
class Drop:
    """One cut.

    Attributes:
        position: samples of the stream that came before the first dropped one.
        samples: how many were dropped.
        at: when, in seconds of the consumer's clock.
    """

    position: int
    samples: int
    at: float


def splice(stale: Samples, fresh: Samples) -> None:
    """Cross-fades from `stale` into `fresh` over their common length, linearly, writing into
    `fresh`; both (F,)."""
    rise = (np.arange(len(fresh), dtype=np.float32) + 1) / (len(fresh) + 1)
    fresh *= rise
    fresh += (1 - rise) * stale


class Backlog:
    """A queue of mono samples with capture times, cut when it is stale.

    Args:
        rate: samples a second.
        nominal: seconds of age that the oldest sample has after a cut.
        limit: seconds of age above which `trim` cuts; None never cuts.
        capacity: seconds of audio it may hold; beyond that the oldest is cut when more is appended.
    """

    def __init__(
        self, rate: int, *, nominal: float = 0.0, limit: float | None = None, capacity: float = 30.0
    ) -> None:
        if limit is not None and limit < nominal:
            raise EngineError(
                f"expected a lag limit of at least the nominal {nominal} s, got {limit} s: raise it"
            )
        self.rate, self.nominal, self.limit, self.capacity = (
            rate,
            nominal,
            limit,
            int(capacity * rate),
        )
        self.fade = max(1, int(FADE_S * rate))
        self.clear()

    def clear(self) -> None:
        """Empties the queue and forgets what was counted."""
        self.taken = 0  # stream position of the first queued sample
        self.dropped = 0
        self.drops: deque[Drop] = deque(maxlen=RECENT)
        self._samples: Samples = np.zeros(0, np.float32)
        self._owed: Samples = np.zeros(
            0, np.float32
        )  # the beginning of a cut that left nothing to fade into yet
        self._marks: deque[tuple[int, float]] = deque([(0, 0.0)])

    def state(self) -> dict[str, Any]:
        """Arrays and numbers to go on from."""
        marks = np.array(self._marks, np.float64)
        return {
            "taken": self.taken,
            "dropped": self.dropped,
            "samples": self._samples,
            "owed": self._owed,
            "marks": marks,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` returned."""
        self.taken, self.dropped, self._samples, self._owed = (
            state["taken"],
            state["dropped"],
            state["samples"],
            state["owed"],
        )
        self._marks = deque((int(at), float(when)) for at, when in state["marks"])

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def seconds(self) -> float:
        """Seconds of audio that wait."""
        return len(self._samples) / self.rate

    def append(self, block: Samples, captured: float | None = None) -> None:
        """Queues block (N,); `captured` is when its first sample was, in seconds (by default: right
        after the one before)."""
        end = self.taken + len(self._samples)
        if captured is not None and abs(self._time(end) - captured) > 0.5 / self.rate:
            self._marks.append((end, captured))
        block = np.array(block, np.float32)
        if len(self._owed) and len(block):
            fade = min(len(self._owed), len(block))
            splice(self._owed[:fade], block[:fade])
            self._owed = self._owed[:0]
        self._samples = np.concatenate([self._samples, block])
        if len(self._samples) > self.capacity:
            self._cut(len(self._samples) - self.capacity, captured or 0.0)

    def captured(self, offset: int = 0) -> float:
        """When the queued sample at `offset` was captured, in seconds."""
        return self._time(self.taken + offset)

    def take(self, count: int) -> Samples:
        """The oldest `count` samples, (count,), which leave the queue.

        Raises:
            EngineError: when fewer are queued.
        """
        if count > len(self._samples):
            raise EngineError(
                f"expected at most the {len(self._samples)} samples that are queued, got a demand"
                f" of {count}: ask `len` first"
            )
        head, self._samples = self._samples[:count], self._samples[count:].copy()
        self._advance(count)
        return head

    def trim(self, now: float) -> int:
        """Cuts what is stale at time `now`, in seconds; returns how many samples were dropped."""
        if self.limit is None or not len(self._samples) or now - self.captured() <= self.limit:
            return 0
        offset = 0
        marks = [
            *[(at, when) for at, when in self._marks if at > self.taken],
            (self.taken + len(self._samples), float("inf")),
        ]
        for (
            at,
            _,
        ) in marks:  # stretches of even time; cut inside the first one that reaches into the fresh
            stretch = at - self.taken - offset
            excess = int(np.ceil((now - self.nominal - self.captured(offset)) * self.rate - 1e-3))
            if excess < stretch:
                offset += max(0, excess)
                break
            offset += stretch
        return self._cut(offset, now)

    def _cut(self, count: int, now: float) -> int:
        """Drops the oldest `count` samples, cross-faded into what follows."""
        if not count:
            return 0
        stale, self._samples = self._samples[: min(self.fade, count)], self._samples[count:].copy()
        fade = min(len(stale), len(self._samples))
        splice(stale[:fade], self._samples[:fade])
        self._owed = stale if not fade else stale[:0]
        self.drops.append(Drop(self.taken, count, now))
        self.dropped += count
        self._advance(count)
        return count

    def _advance(self, count: int) -> None:
        self.taken += count
        while len(self._marks) > 1 and self._marks[1][0] <= self.taken:
            self._marks.popleft()

    def _time(self, position: int) -> float:
        """When the sample at a stream position was captured."""
        for at, when in reversed(self._marks):
            if at <= position:
                return when + (position - at) / self.rate
        at, when = self._marks[0]
        return when + (position - at) / self.rate
