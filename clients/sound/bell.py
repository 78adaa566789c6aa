"""How an audio callback wakes the thread that converts without ever waiting for it."""

import os
import select
import time
from contextlib import suppress


class Bell:
    """Rung by a callback, heard by one worker. Ringing takes no lock and never blocks: where the
    system has no event counters (all but Linux), nothing is heard and the worker sleeps its time
    out.
    """

    def __init__(self) -> None:
        self._counter: int | None = None
        if hasattr(os, "eventfd"):
            self._counter = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._poll = select.poll()
            self._poll.register(self._counter, select.POLLIN)

    def ring(self) -> None:
        """Wakes the worker, or keeps it from sleeping next time."""
        if self._counter is not None:
            with suppress(BlockingIOError):  # it was rung 2^64 times and not heard
                os.eventfd_write(self._counter, 1)

    def wait(self, longest: float) -> bool:
        """Sleeps until the bell was rung since the last time, at most so many seconds; says whether
        it was."""
        if self._counter is None:
            time.sleep(longest)
            return False
        if not self._poll.poll(1000 * longest):
            return False
        with suppress(BlockingIOError):
            os.eventfd_read(self._counter)
        return True

    def close(self) -> None:
        """Nobody rings or waits any more."""
        if self._counter is not None:
            os.close(self._counter)
            self._counter = None
