"""Sound comes before other work, as far as the system allows it."""

import os
from contextlib import suppress

NICE = -11
"""The nice value that a process with sound asks for."""
DEVICE, WORKER = 4, 2
"""Real-time priorities of the threads that serve a device and of the one that converts: above
ordinary work, below the 5 to 88 of sound servers."""


def raise_priority() -> bool:
    """Asks for a higher priority for this thread and those it starts. Returns whether it was
    granted."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    except (OSError, AttributeError):
        # Not permitted, or not a POSIX system: nothing is lost but some protection from load.
        return False
    return True


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
