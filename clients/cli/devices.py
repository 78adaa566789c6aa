"""`rtvc devices`."""

import json

import typer

from rtvc.cli.targets import Json

__all__ = ["devices"]


def devices(as_json: Json = False) -> None:
    """List the audio devices that `rtvc live` can use."""
    from rtvc.clients.live.devices import devices as found_devices

    known = found_devices()
    if as_json:
        typer.echo(json.dumps([device.row() for device in known]))
        return
    if not known:
        typer.echo("no audio devices: is a sound server running? `rtvc doctor` says more")
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for heading in ("", "name", "host", "in", "out", "rate", "delay in / out", "default"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("", "in", "out", "rate"))
    for d in known:
        delays = f"{1000 * d.latency_in:.0f} / {1000 * d.latency_out:.0f} ms"
        table.add_row(
            str(d.index),
            escape(d.name),
            d.host,
            str(d.inputs),
            str(d.outputs),
            f"{d.rate} Hz",
            delays,
            d.default,
        )
    Console(highlight=False).print(table)
