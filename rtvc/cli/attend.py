"""What `rtvc live` and `rtvc stream --mic` do while somebody talks: keys, supervision, one line of display or JSON."""

import json
import sys
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any, Protocol

import typer

from rtvc.clients.live.display import line
from rtvc.clients.live.keys import HELP, pressed, unbuffered


class Running(Protocol):
    """A conversion that goes on by itself."""

    def supervise(self) -> None:
        """Mends what can be mended, raises what cannot."""
        ...

    def status(self) -> dict[str, Any]:
        """How it goes, for `line`."""
        ...


def attend(now: Running, act: Callable[[str], bool], title: str, seconds: float | None, as_json: bool) -> None:
    """Returns when `act`, told every key (nothing, ten times a second), says False, when the seconds are over, or on Ctrl-C.

    Args:
        now: what runs.
        act: takes a key, or nothing, and says whether to go on.
        title: of the line above the display.
        seconds: to go on for; None: until told to stop.
        as_json: a line of JSON a second and one at the end instead of the display.
    """
    with unbuffered(sys.stdin):
        typer.echo(f"{title} · {HELP}", err=True)
        interactive, ends, shown = sys.stdin.isatty(), monotonic() + (seconds or float("inf")), 0.0
        try:
            while monotonic() < ends:
                if not interactive:
                    sleep(0.1)
                elif not act(pressed(timeout=0.1)):
                    break
                now.supervise()
                if as_json and monotonic() - shown >= 1.0:
                    shown = monotonic()
                    typer.echo(json.dumps(now.status()))
                elif not as_json:
                    typer.echo("\r\x1b[K" + line(now.status()), nl=False, err=True)
        except KeyboardInterrupt:
            pass
        final = now.status()
    typer.echo(json.dumps(final | {"state": "stopped"}) if as_json else "", err=not as_json)
