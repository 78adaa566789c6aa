"""`rtvc stats`: parameters, mult-adds, sizes and times of every component of a model."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["stats"]


def stats(
    model: Annotated[
        str, typer.Option(help="styletts-vc, styletts2-istftnet, styletts2-hifigan, vocoder, …")
    ] = "styletts-vc",
    frames: Annotated[
        int, typer.Option(help="mel frames of the example, 80 a second", min=66)
    ] = 192,
    repeats: Annotated[int, typer.Option(help="timed runs; the median is shown", min=1)] = 3,
    threads: Annotated[int, typer.Option(help="CPU threads to time with", min=1)] = 1,
    json: Annotated[
        bool, typer.Option("--json", help="machine-readable, sizes in bytes and times in seconds")
    ] = False,
) -> None:
    """Measure a model from its real modules.

    Example: rtvc stats --model styletts2-istftnet
    """
    import torch
    from rich.console import Console

    from rtvc.errors import ConfigError
    from rtvc.models.cost_tables import MODELS
    from rtvc.models.summary import summarise

    if model not in MODELS:
        raise ConfigError(
            f"there is no model {model!r} to measure: name one of {', '.join(MODELS)}"
        )
    torch.set_num_threads(threads)
    result = {"model": model, **summarise(MODELS[model](), frames, repeats)}
    if json:
        import json as encoder

        print(encoder.dumps(result, indent=2))
        return
    console = Console()
    console.print(table(result))
    for cost in result["components"]:
        if cost["why"] and abs(cost["mult_adds"] / cost["mult_adds_published"] - 1) > 0.001:
            console.print(
                f"{cost['name']}: printed {scaled(cost['mult_adds_published'])}, counted"
                f" {scaled(cost['mult_adds'])}: the printed figure {cost['why']} (counted so:"
                f" {scaled(cost['mult_adds_by_layer_outputs'])}).",
                soft_wrap=True,
            )
        if cost["idle"]:
            console.print(
                f"{cost['name']}: {cost['idle']:,} parameters are idle in this forward.",
                soft_wrap=True,
            )


def scaled(number: float) -> str:
    """2083000000 -> 2.08 G."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number:.0f}"


def table(result: dict[str, Any]) -> "Table":
    """A summary as a table; sizes in MB of 10^6 bytes."""
    from rich.table import Table

    printed = any(cost["mult_adds_published"] for cost in result["components"])
    grid = Table(
        title=f"{result['model']}, {result['frames']} mel frames ({result['frames'] / 80:.2f} s)",
        title_justify="left",
    )
    grid.add_column("component")
    headings = [
        "parameters",
        "in training",
        "in inference",
        "mult-adds",
        *(["printed"] if printed else []),
    ]
    for heading in [*headings, "input MB", "fwd/bwd MB", "params MB", "total MB", "time ms"]:
        grid.add_column(heading, justify="right", no_wrap=True)
    rows = [*result["components"], {**result["total"], "name": "total"}]
    for index, cost in enumerate(rows):
        published = cost.get("mult_adds_published")
        sizes = (
            cost["input_size"],
            cost["forward_backward_size"],
            cost["params_size"],
            cost["total_size"],
        )
        grid.add_row(
            cost["name"],
            *(
                f"{cost[key]:,}" if cost[key] else "–"
                for key in ("parameters", "training", "inference")
            ),
            scaled(cost["mult_adds"]),
            *([scaled(published) if published else "–"] if printed else []),
            *(f"{size / 1e6:.2f}" for size in sizes),
            f"{1000 * cost['running_time']:.1f}",
            end_section=index == len(rows) - 2,
        )
    return grid
