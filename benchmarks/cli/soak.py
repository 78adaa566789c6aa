"""`rtvc bench soak`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from rtvc.cli.targets import tell

__all__ = ["soak"]


def soak(
    minutes: Annotated[float, typer.Option(help="how long", min=0.1)] = 10.0,
    server: Annotated[str, typer.Option(help="pulseaudio or pipewire")] = "pulseaudio",
    busy: Annotated[int, typer.Option(help="programs that keep the core busy", min=0)] = 1,
    against: Annotated[
        Path | None, typer.Option(help="folder of another checkout, run instead of this one")
    ] = None,
    output: Annotated[Path | None, typer.Option("--json", help="write the result here")] = None,
) -> None:
    """Live for minutes on a busy core, a loudspeaker unplugged and a microphone changed meanwhile.

    Example: rtvc bench soak --minutes 10
    """
    from rtvc.benchmarks import report
    from rtvc.benchmarks.live.cold import ROOT
    from rtvc.benchmarks.live.soak import soak as run

    report.check(output)
    root = ROOT if against is None else against.resolve()
    result = run(minutes, server=server, busy=busy, root=root)
    tell(json.dumps(result, indent=2), output)
    path = report.save([result], output, kind="soak")
    typer.echo(f"results: {path}", err=True)
