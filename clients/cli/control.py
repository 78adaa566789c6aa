"""`rtvc control WORD…`: changes a conversion while somebody speaks."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["control"]

SETTINGS = {"ignore_unknown_options": True}
"""Of the command: `pitch -2` is a number, not an option."""

WORDS = """What to change:

 voice anna · mix anna:0.7 ben:0.3 · pitch -2 · pitch up · prosody 0.5

 bypass, mute, gate, record, agc, denoise, virtual-mic: on, off, or nothing to toggle

 lookahead 25 · input NAME · output NAME · monitor NAME, default or off · status"""


def control(
    words: Annotated[list[str], typer.Argument(metavar="WORD...", help=WORDS, show_default=False)],
    pid: Annotated[
        int | None, typer.Option(help="of which process; default: the one started last")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="a session on this server instead of one on this machine")
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help="what the server wants to see")] = None,
    session_token_file: Annotated[
        Path | None, typer.Option(help="what the session was started with, see `rtvc stream`")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the state as JSON")] = False,
) -> None:
    """Change a running conversion: its voice, pitch, devices, recording.

    Example: rtvc control mix anna:0.7 ben:0.3
    """
    from rtvc.clients.control.change import of_words

    asked = {} if words == ["status"] else of_words(words).asked()
    if url is not None:
        from rtvc.clients.control.session import change_session

        state = change_session(url, token_file, session_token_file, asked)
    else:
        from rtvc.clients.control.call import Line
        from rtvc.clients.control.runtime import address_of

        line = Line(address_of(pid))
        state = line.change(asked) if asked else line.status()
    typer.echo(json.dumps(state) if as_json else summary(state))


def summary(state: dict[str, Any]) -> str:
    """A state in a line for people."""
    from rtvc.printable import printable

    voice = state.get("voice", "")
    if isinstance(voice, dict):
        voice = " + ".join(f"{name}:{share:g}" for name, share in voice.items())
    flags = [name for name in ("bypass", "muted") if state.get(name)]
    if state.get("recording", {}).get("on"):
        flags.append("recording")
    lag = f"lag {state['lag_p50_ms']:.0f} ms" if "lag_p50_ms" in state else ""
    parts = [voice, f"pitch {state.get('pitch', 0.0):+g}", lag, *flags, state.get("problem", "")]
    return printable(" · ".join(part for part in parts if part), 200)
