"""One session of a pool: it queues what is asked of it, and the pool's thread does it."""

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Unpack

from numpy.typing import ArrayLike
from torch import Tensor

from rtvc import checks
from rtvc.audio.samples import Samples
from rtvc.engine.backends.base import Backend
from rtvc.engine.streams.backlog import Backlog
from rtvc.engine.streams.block import check_block
from rtvc.engine.streams.controls import Controls, StreamSettings
from rtvc.errors import EngineError
from rtvc.voices.voice import Voice


class Progress(Enum):
    """How far a session of a pool is."""

    RUNNING = "input comes, or output of it is still to come"
    COMPLETE = "all of its output has been given out"
    LEFT = "its place was given back"


class PoolSession(Controls):
    """A session whose steps are done with those of others: `push` returns at once, and what comes
    of it is among the pieces that `Pool.tick` returns. A pool makes it.

    Args:
        backend: what runs the steps.
        state: (1, S) the converter's state, a row of the pool's.
        voice: the voice to speak with.
        clock: seconds, the pool's.
        changed: called when there is something to do.
        deadline: seconds after a chunk's last sample came by which it should be converted.
        backlog: bounds the lag.
        settings: see `StreamSettings`.

    Attributes:
        progress: how far it is; the pool moves it on.
        steps: of the model so far.
        late: steps that came after their deadline.
    """

    def __init__(
        self,
        backend: Backend,
        state: Tensor,
        voice: Voice,
        *,
        clock: Callable[[], float],
        changed: Callable[[], None],
        deadline: float,
        backlog: Backlog,
        **settings: Unpack[StreamSettings],
    ) -> None:
        super().__init__(backend, voice, backlog=backlog, **settings)
        self.state, self.clock, self.changed, self.deadline = state, clock, changed, deadline
        self.tick_s = backend.chunk / backend.sample_rate
        self.progress = Progress.RUNNING
        self.late = self.steps = 0
        self._arrivals: deque[tuple[int, float]] = deque()
        """Where a block ended in the chunker's backlog, and when it came."""
        self._changes: deque[Callable[[], None]] = deque([self._begin])
        self._clock_end = 0.0

    @property
    def done(self) -> bool:
        """Whether no more output will come."""
        return self.progress is not Progress.RUNNING

    def apply(self, change: Callable[[], None]) -> None:
        """Queues a change of the chunker for the next tick."""
        self._changes.append(change)
        self.changed()

    def apply_changes(self) -> None:
        """Carries out what was asked since the last tick; the pool calls it with `stepping`
        held."""
        while self._changes:
            self._changes.popleft()()

    def push(
        self, block: ArrayLike, *, captured: float | None = None, arrived: float | None = None
    ) -> None:
        """A block of mono floats.

        Args:
            block: (N,) samples.
            captured: when the first was, on the pool's clock; by default the block has just ended.
            arrived: when the block came, on the pool's clock. Where it is said, urgency and
                lateness are judged by it and not by `captured`, which strangers say: nobody is
                served before others, or counted as late, for what is claimed.

        Raises:
            AudioError: for a block that is not mono, not floats or not finite.
            EngineError: after it left the pool.
        """
        if self.progress is Progress.LEFT:
            raise EngineError(
                "expected a session of the pool, got a block for one that has left: join again"
            )
        samples, captured = check_block(block).copy(), checks.moment(captured, "captured")
        if captured is None:
            duration = len(samples) / self.chunker.entry.rate_in
            captured = max(self._clock_end, self.clock() - duration)
            self._clock_end = captured + duration
        self.apply(lambda: self._feed(samples, captured, arrived))

    def _feed(self, samples: Samples, captured: float, arrived: float | None) -> None:
        backlog = self.chunker.backlog
        self.chunker.feed(samples, captured)
        if arrived is not None:
            self._arrivals.append((backlog.taken + len(backlog), arrived))

    def due(self) -> float | None:
        """When the next chunk of the backlog had come in full, plus the deadline; None when nobody
        says."""
        end = self.chunker.backlog.taken + self.chunker.chunk
        while len(self._arrivals) > 1 and self._arrivals[0][0] < end:
            self._arrivals.popleft()
        return self._arrivals[0][1] + self.deadline if self._arrivals else None

    def finish(self) -> None:
        """No more input: the rest comes with the next ticks, the last piece of it says `done`."""
        self.apply(self.chunker.finish)

    def reset(self) -> None:
        """Another stream from the beginning, with the same voice."""
        self.apply(self._begin)

    def parked(self) -> bytes:
        """The whole session as it is between two steps; call it with `Pool.stepping` held, or
        through `apply`."""
        return self.to_bytes(self.state)

    def unpark(self, data: bytes) -> None:
        """Goes on from what `parked` returned; call it with `Pool.stepping` held.

        Raises:
            EngineError: the bytes are no session, or one of another kind.
        """
        self.apply_changes()
        self.state[0] = self.from_bytes(data)[0]

    def _begin(self) -> None:
        self.chunker.reset()
        self._arrivals.clear()
        if self.progress is Progress.COMPLETE:
            self.progress = Progress.RUNNING
        self.state[0] = self.backend.initial(1)[0]
