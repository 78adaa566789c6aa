"""`rtvc evaluate`: how intelligible, similar, natural and fast a model's conversions are."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtvc.cli.voice import Fit

if TYPE_CHECKING:
    from rich.table import Table

    from rtvc.engine.backends.base import Backend
    from rtvc.models.streaming.interface import Converter

__all__ = ["evaluate"]


def evaluate(
    pairs: Annotated[Path, typer.Option(help="list of conversions (tab-separated); recordings under eval/ beside it")] = Path(
        "../shared/corpus/eval_pairs.tsv"
    ),
    model: Annotated[str | None, typer.Option(help="stream (default), studio, or a file of weights (.safetensors, .pth)")] = None,
    limit: Annotated[int | None, typer.Option(help="only the first so many pairs", min=1)] = None,
    json: Annotated[Path | None, typer.Option(help="write the result here, and a picture beside it (.png)")] = None,
    report: Annotated[Path | None, typer.Option(help="write a page with audio players and spectrograms into this folder")] = None,
    workers: Annotated[int, typer.Option(help="threads that measure; conversion always runs alone", min=1)] = 1,
    chunk: Annotated[
        float | None, typer.Option(help="convert in chunks of so many milliseconds, as a live stream", show_default=False)
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(help="runs the stream's steps: auto, onnx-int8, …; default: plain torch", show_default=False),
    ] = None,
    fit: Fit = None,
    threads: Annotated[int, typer.Option(help="threads that convert", min=1)] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
) -> None:
    """Convert a list of recordings and measure the result.

    A killed run goes on where it stopped: what was converted and measured is kept beside the result.

    Example: rtvc evaluate --limit 8 --chunk 25 --json result.json --report report
    """
    import torch
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from rtvc.data.registry import cache_dir
    from rtvc.errors import ConfigError
    from rtvc.evaluate.converter import LibraryConverter
    from rtvc.evaluate.pairs import read_pairs
    from rtvc.evaluate.picture import overview
    from rtvc.evaluate.report import write_report
    from rtvc.evaluate.run import conversion, evaluate_pairs
    from rtvc.files import write_json

    if backend is not None and chunk is None:
        raise ConfigError(f"--backend {backend} runs the steps of a stream: give --chunk as well, such as --chunk 25")
    listed = read_pairs(pairs, limit)
    torch.set_num_threads(threads)

    def open_stepper(steps: "Converter", samples: int) -> "Backend":
        from rtvc.engine.open import open_engine

        return open_engine(steps, str(backend), samples)[0]

    converter = LibraryConverter(model, chunk, device, fit, open_stepper if backend else None)
    cache = json.parent / f"{json.stem}.cache" if json else cache_dir() / "evaluate"
    console = Console()
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks = {stage: bar.add_task(stage, total=len(listed)) for stage in ("convert", "measure", *(["report"] if report else []))}

        def advance(stage: str, done: int, total: int) -> None:
            bar.update(tasks[stage], completed=done, total=total)

        result = evaluate_pairs(
            converter, pairs, limit, model=converter.name, key=converter.key, cache=cache, workers=workers, progress=advance
        )
        if json:
            write_json(json, result)
            overview(result, json.with_suffix(".png"))
        if report:
            folder = cache / converter.key
            page = write_report(
                report,
                result,
                listed,
                lambda pair: conversion(converter, pair, folder)[0],
                lambda done, total: advance("report", done, total),
            )
    console.print(table(result))
    if json:
        console.print(f"result: {json}, picture: {json.with_suffix('.png')}", soft_wrap=True)
    if report:
        console.print(f"report: {page}", soft_wrap=True)


def table(result: dict[str, Any]) -> "Table":
    """The summary for people: metric, mean, 95 % interval."""
    from rich.table import Table

    from rtvc.evaluate.pitch import METHOD
    from rtvc.evaluate.report import LABELS, number
    from rtvc.evaluate.summary import METRICS

    summary = result["summary"]
    title = f"{result['model']}: {summary['pairs_evaluated']} pairs, {result['date'][:10]}, commit {result['commit']}"
    shown = Table("metric", title=title, caption=f"F0 correlation: {METHOD}")
    shown.add_column("mean", justify="right")
    shown.add_column("95 % interval", justify="right")
    for metric in METRICS:
        interval = summary["ci95"][metric]
        shown.add_row(LABELS[metric], number(summary[metric]), f"{interval[0]:.3f} … {interval[1]:.3f}" if interval else "–")
    return shown
