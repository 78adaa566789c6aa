"""Hot keys in the terminal: one key, one action, no Enter."""

import select
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from rtvc.checks import PITCH
from rtvc.clients.live.live import Live
from rtvc.voices.voice import Voice

HELP = "b bypass · m mute · 1-9 voice · +/- pitch · q quit"


def act(key: str, live: Live, voices: Sequence[Voice]) -> bool:
    """Carries out a key's action; returns whether to go on."""
    session, pump = live.session, live.pump
    if key == "q":
        return False
    if key == "b":
        session.wet = 0.0 if session.wet else 1.0
    elif key == "m":
        pump.muted = not pump.muted
    elif key in ("+", "-"):
        session.pitch = min(PITCH[1], max(PITCH[0], session.pitch + (1.0 if key == "+" else -1.0)))
    elif key.isdigit() and 0 < int(key) <= len(voices):
        session.swap(voices[int(key) - 1])
    return True


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
