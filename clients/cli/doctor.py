"""`rtvc doctor`."""

import json
import textwrap
from typing import Annotated, Any

import typer

from rtvc.cli import say
from rtvc.cli.targets import Json, Weights

__all__ = ["doctor"]


def doctor(
    model: Weights = None,
    speed: Annotated[
        bool,
        typer.Option(help="time the model's step with every backend (a minute the first time)"),
    ] = True,
    again: Annotated[
        bool, typer.Option(help="measure even if this machine was measured before")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say whether live conversion works here, the delay to expect, and what to buy or to change.

    Ends with 1 where live would not work.
    """
    from rtvc.cli.progress import busy
    from rtvc.clients.live.doctor import examine

    converter = None
    with busy("examining this machine"):
        if speed:
            from rtvc.engine.loading import streaming

            _, converter = streaming(model)
        report = examine(converter, again=again)
    if as_json:
        typer.echo(json.dumps(report))
    else:
        for line in lines(report):
            say(line)
    if not report["works"]:
        raise typer.Exit(1)


def lines(report: dict[str, Any]) -> list[str]:
    """The report for people, 80 columns wide."""
    expected = report.get("expected_ms")
    if not report["works"]:
        said = ["Live conversion does not work here.", ""]
    elif expected is None:
        said = ["Live conversion should work here (no step was timed).", ""]
    else:
        said = [f"Live conversion works here: about {expected:.0f} ms from mouth to ear.", ""]
    for problem in report["problems"]:
        said += wrapped("problem", problem)
    for name, milliseconds in report.get("budget_ms", {}).items():
        what = {
            "microphone": report["sound"].get("input"),
            "loudspeaker": report["sound"].get("output"),
        }.get(name)
        label = f"{name} {what!r}" if what else NAMES[name]
        said += wrapped(f"{milliseconds:5.1f} ms", label)
    said += held(report)
    for each in report["advice"]:
        said += wrapped("advice", each)
    if report["virtual_mic"] is None:
        said += wrapped("virtual", "other programs can pick rtvc as a microphone")
    processor, kept = report["cpu"], report["packages"]
    features = " ".join(processor["features"]) or "no known features"
    said += wrapped(
        "processor",
        f"{processor['name']}, {processor['cores']} cores, load {processor['load']}: {features}",
    )
    return said + wrapped("packages", "  ".join(f"{name} {v or '-'}" for name, v in kept.items()))


NAMES = {
    "microphone": "the microphone",
    "block": "a block of the sound card (rtvc live --block)",
    "step": "a step of the model (rtvc live --chunk)",
    "look-ahead": "what the model hears ahead",
    "computing": "computing a step",
    "queue": "waiting at the player, against jitter (rtvc live --margin)",
    "loudspeaker": "the loudspeaker",
}
"""What adds to the delay."""


def held(report: dict[str, Any]) -> list[str]:
    """Whether the processor holds the step, and the times of all backends."""
    said = []
    best = report.get("speed", {}).get("recommended")
    if best:
        share = best["step_p95_ms"] / best["chunk_ms"]
        said += wrapped(
            "step",
            f"the processor holds it: {best['step_p95_ms']:.1f} of {best['chunk_ms']:g} ms with"
            f" {best['engine']} ({share:.0%}); rtvc live --chunk {best['chunk_ms']:g}",
        )
    for milliseconds, measurement in report.get("speed", {}).get("chunks", {}).items():
        for name, figures in measurement["measured"].items():
            mark = "  <- taken" if name == measurement["backend"] else ""
            said += wrapped(
                f"{milliseconds:>5s} ms",
                f"{name:14s} p50 {figures['p50_ms']:7.2f}  p95 {figures['p95_ms']:7.2f} ms{mark}",
            )
    return said


def wrapped(label: str, text: str) -> list[str]:
    """Lines of at most 80 columns, the label before the first."""
    return textwrap.wrap(
        text,
        80,
        initial_indent=f"{label:11s} ",
        subsequent_indent=" " * 12,
        drop_whitespace=True,
        break_on_hyphens=False,
    )
