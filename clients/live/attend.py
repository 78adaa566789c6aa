"""What `rtvc live` and `rtvc stream --mic` do while somebody talks: keys, supervision, one line of
display or JSON."""

import json
import sys
from collections.abc import Callable
from time import monotonic, sleep
from typing import Protocol

from rtvc.clients.live.display import line
from rtvc.clients.live.keys import HELP, pressed, unbuffered
from rtvc.clients.live.status import Status
from rtvc.errors import ConfigError, DeviceError, OutputError, VoiceError


class Running(Protocol):
    """A conversion that goes on by itself."""

    def supervise(self) -> None:
        """Mends what can be mended, raises what cannot."""
        ...

    def status(self) -> Status:
        """How it is doing."""
        ...


def attend(
    now: Running, act: Callable[[str], bool], title: str, seconds: float | None, as_json: bool
) -> None:
    """Returns when `act`, told every key (nothing, ten times a second), says False, when the
    seconds are over, or on Ctrl-C.

    Args:
        now: what runs.
        act: takes a key, or nothing, and says whether to go on.
        title: of the line above the display.
        seconds: to go on for; None: until told to stop.
        as_json: a line of JSON a second and one at the end instead of the display.
    """
    with unbuffered(sys.stdin):
        print(f"{title} · {HELP}", file=sys.stderr)
        interactive, ends, shown = sys.stdin.isatty(), monotonic() + (seconds or float("inf")), 0.0
        try:
            while monotonic() < ends:
                if not interactive:
                    sleep(0.1)
                elif not told(act, pressed(timeout=0.1)):
                    break
                now.supervise()
                if as_json and monotonic() - shown >= 1.0:
                    shown = monotonic()
                    print(json.dumps(now.status().as_dict()), flush=True)
                elif not as_json:
                    print("\r\x1b[K" + line(now.status()), end="", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            pass
        final = now.status()
    if as_json:
        print(json.dumps(final.as_dict() | {"state": "stopped"}), flush=True)
    else:
        print(file=sys.stderr)


def told(act: Callable[[str], bool], key: str) -> bool:
    """Whether to go on after a key; what it asked for and was refused is said and no more."""
    try:
        return act(key)
    except (ConfigError, DeviceError, OutputError, VoiceError) as refused:
        print(f"\r\x1b[K{refused}", file=sys.stderr)
        return True
