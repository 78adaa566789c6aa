"""Hot keys in the terminal: one key, one action, no Enter."""

import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

HELP = "b bypass · m mute · r record · 1-9 voice · +/- pitch · q quit"


@contextmanager
def unbuffered(stream: TextIO) -> Iterator[None]:
    """Keys arrive one by one while the block runs; a stream that is no terminal is left as it
    is."""
    if not stream.isatty():
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(stream)
    try:
        tty.setcbreak(stream)
        yield
    finally:
        termios.tcsetattr(stream, termios.TCSADRAIN, before)


def pressed(stream: TextIO | None = None, timeout: float = 0.0) -> str:
    """The key that was pressed within `timeout` seconds, or nothing."""
    source = sys.stdin if stream is None else stream
    ready, _, _ = select.select([source], [], [], timeout)
    return source.read(1) if ready else ""
