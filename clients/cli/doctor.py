"""`rtvc doctor`."""

import json
from typing import Annotated

import typer

__all__ = ["doctor"]


def doctor(
    model: Annotated[
        str | None, typer.Option(help="a file of weights; default: the shipped streaming model")
    ] = None,
    speed: Annotated[
        bool,
        typer.Option(help="time the model's step with every backend (a minute the first time)"),
    ] = True,
    again: Annotated[
        bool, typer.Option(help="measure even if this machine was measured before")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Check this machine: devices, processor, packages, step times, the latency to expect."""
    from rtvc.clients.live.doctor import examine

    converter = None
    if speed:
        from rtvc.engine.loading import streaming

        _, converter = streaming(model)
    report = examine(converter, again=again)
    if as_json:
        typer.echo(json.dumps(report))
        return
    processor, heard = report["cpu"], report["sound"]
    typer.echo(
        f"processor   {processor['name']}, {processor['cores']} cores, load {processor['load']}:"
        f" {' '.join(processor['features'])}"
    )
    typer.echo(
        "packages    " + "  ".join(f"{name} {v or '-'}" for name, v in report["packages"].items())
    )
    if heard["devices"]:
        typer.echo(
            f"sound       in {heard['input']!r}, out {heard['output']!r}, {heard['device_ms']} ms"
            " in the devices"
        )
    for milliseconds, found in report.get("speed", {}).get("chunks", {}).items():
        for name, figures in found["measured"].items():
            mark = "  <- fastest" if name == found["backend"] else ""
            typer.echo(
                f"step {milliseconds:>5s} ms  {name:16s} p50 {figures['p50_ms']:7.2f}  p95"
                f" {figures['p95_ms']:7.2f} ms{mark}"
            )
    best = report.get("speed", {}).get("recommended")
    if best:
        command = f"rtvc live --chunk {best['chunk_ms']:g} --engine {best['engine']}"
        typer.echo(f"recommended {command}: about {report['expected_ms']} ms from mouth to ear")
    for advice in report["advice"]:
        typer.echo(f"advice      {advice}")
