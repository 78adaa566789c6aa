"""The thread that steps the pool, so that the event loop never waits for the model."""

import logging
import threading
import time
from collections.abc import Callable

from rtvc.engine.server.metrics import Metrics
from rtvc.engine.streams.pool import Piece, Pool

PACE_S = 0.005
"""Ticks are at least this far apart, and as far as one takes, up to a fifth of a chunk: what comes
meanwhile is one batch."""
ASLEEP_S = 0.25
"""Seconds between two looks while nobody is there."""
STRIKES = 3
"""Ticks with work, in a row, that may fail before every session is given up."""
LATE_S = 2.0
"""Seconds without a tick after which sessions are not served any more, whatever the reason."""

log = logging.getLogger("rtvc.serve")


class PoolThread(threading.Thread):
    """Ticks a pool whenever something was pushed.

    Args:
        pool: the pool.
        metrics: count every step.
        deliver: is given, in this thread, what a tick put out.
        fail: called, in this thread, when the pool can no longer be stepped.
    """

    def __init__(
        self,
        pool: Pool,
        metrics: Metrics,
        deliver: Callable[[list[Piece]], None],
        fail: Callable[[], None],
    ) -> None:
        super().__init__(name="rtvc-pool", daemon=True)
        self.pool, self.metrics, self.deliver, self.fail = pool, metrics, deliver, fail
        self.slowest = pool.tick_s / 5
        self.pace = min(PACE_S, self.slowest)
        self._halt, self._last_tick = threading.Event(), time.monotonic()
        self._steps = self._strikes = 0

    @property
    def ticking(self) -> bool:
        """Whether the thread runs and has ticked lately; it does so even when nobody is there."""
        return self.is_alive() and time.monotonic() - self._last_tick < LATE_S

    def stop(self) -> None:
        """Ends the thread after the tick that is under way."""
        self._halt.set()
        self.pool.wake.set()
        self.join()

    def run(self) -> None:
        """What the thread does."""
        try:
            self._run()
        except BaseException:  # whoever has a session must hear that nothing will come any more
            self.metrics.crashes.inc()
            log.exception("the thread that steps the pool ends: restart this server")
            self.fail()

    def _run(self) -> None:
        pool, last = self.pool, 0.0
        while not self._halt.is_set():
            pool.wake.wait(pool.tick_s if pool.sessions else ASLEEP_S)
            rest = last + self.pace - time.perf_counter()
            if rest > 0:
                time.sleep(rest)
            pool.wake.clear()
            last = time.perf_counter()
            self._tick()
            self.pace = min(max(PACE_S, time.perf_counter() - last), self.slowest)
            self._last_tick = time.monotonic()

    def _tick(self) -> None:
        try:
            pieces = self.pool.tick()
        except Exception:
            self._strikes += 1
            self.metrics.crashes.inc()
            log.exception("a tick of the pool failed (%d in a row)", self._strikes)
            if self._strikes >= STRIKES:
                self._strikes = 0
                self.fail()
            return
        try:
            self._count_steps()
            if pieces:
                self.deliver(pieces)
        except Exception:  # what was taken out of the pool is lost
            self.metrics.crashes.inc()
            log.exception("the output of a tick could not be passed on")
            self.fail()

    def _count_steps(self) -> None:
        times = self.pool.times
        fresh = min(times.count - self._steps, len(times.times))
        self._steps = times.count
        if fresh:
            self._strikes = 0
            self.metrics.steps(list(times.times)[-fresh:])
