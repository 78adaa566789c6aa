"""Logs that stay small whatever strangers do: alike lines are written a few at a time, and then
counted."""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rtvc.engine.admission.limits import Bucket

AT_ONCE = 20
"""Alike lines that are written at once."""
PER_S = 0.2
"""Alike lines that are written a second afterwards."""
KINDS = 256
"""Kinds of lines that are told apart."""


class Sparing(logging.Filter):
    """Lets few lines of one kind through; the next one that passes says how many did not.

    Lines are alike when their text before it is filled in is, and their first argument: `refused
    code=%s address=%s` is another kind for every code, and the same for all addresses.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.clock = clock
        self._kinds: OrderedDict[tuple[str, str], tuple[Bucket, list[int]]] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is written."""
        if record.levelno < logging.WARNING:
            return True  # who asks for them wants them all
        first = record.args[0] if isinstance(record.args, tuple) and record.args else ""
        kind = (str(record.msg), str(first) if "code=%s" in str(record.msg) else "")
        bucket, left = self._kinds.setdefault(kind, (Bucket(PER_S, AT_ONCE, self.clock), [0]))
        self._kinds.move_to_end(kind)
        if len(self._kinds) > KINDS:
            self._kinds.popitem(last=False)
        if not bucket.take():
            left[0] += 1
            return False
        if left[0]:
            record.msg, left[0] = f"{record.msg} (and {left[0]} like it before)", 0
        return True


@contextmanager
def sparing(*names: str) -> Iterator[None]:
    """Spares the logs of some names."""
    kept = [(logging.getLogger(name), Sparing()) for name in names]
    for log, rule in kept:
        log.addFilter(rule)
    try:
        yield
    finally:
        for log, rule in kept:
            log.removeFilter(rule)
