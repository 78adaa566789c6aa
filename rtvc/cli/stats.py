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

    from rtvc.cli.progress import busy
    from rtvc.errors import ConfigError
    from rtvc.models.cost_tables import MODELS
    from rtvc.models.summary import summarise

    if model not in MODELS:
        raise ConfigError(
            f"there is no model {model!r} to measure: name one of {', '.join(MODELS)}"
        )
    torch.set_num_threads(threads)
    with busy("measuring"):
        result = {"model": model, **summarise(MODELS[model](), frames, repeats)}
    if json:
        import json as encoder

        print(encoder.dumps(result, indent=2))
        return
    console = Console(highlight=False)
    console.print(table(result))
    total = result["total"]
    console.print(
        f"{total['training']:,} parameters in training, {total['inference']:,} in inference; input,"
        " forward and backward sizes are in --json."
    )
    for cost in result["components"]:
        if cost["why"] and abs(cost["mult_adds"] / cost["mult_adds_published"] - 1) > 0.001:
            console.print(
                f"{cost['name']}: printed {scaled(cost['mult_adds_published'])}, counted"
                f" {scaled(cost['mult_adds'])}: the printed figure {cost['why']} (counted so:"
                f" {scaled(cost['mult_adds_by_layer_outputs'])})."
            )
        if cost["idle"]:
            console.print(f"{cost['name']}: {cost['idle']:,} parameters are idle in this forward.")


def scaled(number: float) -> str:
    """2083000000 -> 2.08 G."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number:.0f}"


def table(result: dict[str, Any]) -> "Table":
    """A summary as a table of at most 80 columns; sizes in MB of 10^6 bytes."""
    from rich.table import Table

    printed = any(cost["mult_adds_published"] for cost in result["components"])
    grid = Table(
        title=f"{result['model']}, {result['frames']} mel frames ({result['frames'] / 80:.2f} s)",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    grid.add_column("component", overflow="fold")
    headings = ["parameters", "used in", "mult-adds", *(["printed"] if printed else [])]
    for heading in [*headings, "total MB", "ms"]:
        grid.add_column(heading, justify="right", no_wrap=True)
    rows = [*result["components"], {**result["total"], "name": "total"}]
    for cost in rows:
        published = cost.get("mult_adds_published")
        uses = [use for use in ("training", "inference") if cost[use]]
        grid.add_row(
            cost["name"],
            f"{cost['parameters']:,}",
            "both" if len(uses) == 2 else "".join(uses),
            scaled(cost["mult_adds"]),
            *([scaled(published) if published else "–"] if printed else []),
            f"{cost['total_size'] / 1e6:.2f}",
            f"{1000 * cost['running_time']:.1f}",
        )
    return grid
