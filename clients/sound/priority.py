"""Sound comes before other work, as far as the system allows it."""

import os
import sys
import threading
from collections import deque
from contextlib import suppress

NICE = -11
"""The nice value that a process with sound asks for."""
GENTLE = 15
"""That of a thread that makes voices meanwhile."""
DEVICE, WORKER = 4, 2
"""Real-time priorities of the threads that serve a device and of the one that converts: above
ordinary work, below the 5 to 88 of sound servers."""


MODEST, GREEDY = 0.8, 0.95
"""Shares of a processor: a thread that needs less than the first is given real time, one that has
it and needs more than the second loses it. Between them is what one busy second may differ from the
next."""
ALONE_MODEST, ALONE_GREEDY = 0.6, 0.85
"""The same on a single processor, where all that it does not need is the sound server's, too: ten
minutes of a thread that needed 0.8 of it cost 407 xruns with real time and 4 without."""
JUDGED_S = 1.0
"""Seconds of audio over which a share is taken."""


def raise_priority() -> bool:
    """Asks for a higher priority for this thread and those it starts. Returns whether it was
    granted."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    except (OSError, AttributeError):
        # Not permitted, or not a POSIX system: nothing is lost but some protection from load.
        return False
    return True


def stand_back() -> None:
    """Lets everything else go before this thread, for good: nobody but root could take that back.
    The main thread keeps its place, which is its process's, and so does every thread where
    priorities are those of processes (all systems but Linux)."""
    if sys.platform != "linux" or threading.current_thread() is threading.main_thread():
        return
    this = (os.PRIO_PROCESS, threading.get_native_id())
    if os.getpriority(*this) < GENTLE:  # nobody may come forward
        os.setpriority(*this, GENTLE)


def ordinary() -> None:
    """Takes real time from this thread again."""
    with suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def processors() -> int:
    """How many this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def realtime(priority: int, *, inherited: bool = False) -> bool:
    """Asks for real time for this thread, which being nice does not replace: desktops share a
    processor evenly between sessions, however nice each is. Returns whether it was granted.

    Args:
        priority: from 1 to 99.
        inherited: threads and processes that this one starts have it, too.
    """
    try:
        policy = os.SCHED_RR | (0 if inherited else os.SCHED_RESET_ON_FORK)
        os.sched_setscheduler(0, policy, os.sched_param(priority))
    except (OSError, AttributeError):
        return False
    return True


class Urgency:
    """Real time for a thread that converts, for as long as it leaves others room: a thread with
    real time that needs the whole of a processor stops everything else there. It is given real time
    once its share is known to be small, and loses it while it is not, whatever runs the steps.

    Args:
        priority: from 1 to 99.

    Attributes:
        granted: whether the thread has real time now.
    """

    def __init__(self, priority: int) -> None:
        self.priority, self.granted = priority, False
        alone = processors() == 1
        self.modest, self.greedy = (ALONE_MODEST, ALONE_GREEDY) if alone else (MODEST, GREEDY)
        self._turns = deque[tuple[float, float]]()
        self._spent = self._audio = 0.0

    def turn(self, spent: float, audio: float) -> None:
        """To be called by the thread itself.

        Args:
            spent: seconds of a processor (`time.thread_time`) that a turn took. Time for which it
                was kept waiting by others does not count: that is what real time is for.
            audio: seconds that were converted.
        """
        self._turns.append((spent, audio))
        self._spent, self._audio = self._spent + spent, self._audio + audio
        if self._audio < JUDGED_S:
            return
        share = self._spent / self._audio
        if not self.granted and share < self.modest:
            self.granted = realtime(self.priority)
        elif self.granted and share > self.greedy:
            self.granted = False
            ordinary()
        while self._audio >= JUDGED_S:
            spent, audio = self._turns.popleft()
            self._spent, self._audio = self._spent - spent, self._audio - audio
