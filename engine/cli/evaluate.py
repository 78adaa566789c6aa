"""`rtvc evaluate`: how intelligible, similar, natural and fast a model's conversions are."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rtvc.cli.voice import Fit

if TYPE_CHECKING:
    from rich.console import Console

    from rtvc.engine.backends.base import Backend
    from rtvc.evaluate.converter import LibraryConverter
    from rtvc.evaluate.pairs import Pair
    from rtvc.models.streaming.interface import Converter

__all__ = ["evaluate"]


def evaluate(
    pairs: Annotated[
        Path,
        typer.Option(help="list of conversions (tab-separated); recordings under eval/ beside it"),
    ] = Path("../shared/corpus/eval_pairs.tsv"),
    model: Annotated[
        str | None,
        typer.Option(help="stream (default), studio, or a file of weights (.safetensors, .pth)"),
    ] = None,
    more: Annotated[
        int,
        typer.Option(
            help=(
                "so many more pairs of the same corpus (eval.tsv beside the list), always the same"
            ),
            min=0,
        ),
    ] = 0,
    limit: Annotated[int | None, typer.Option(help="only the first so many pairs", min=1)] = None,
    json: Annotated[
        Path | None,
        typer.Option(help="write the result here, and a picture of an evaluation beside it (.png)"),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="write a page with audio players and spectrograms into this folder"),
    ] = None,
    workers: Annotated[
        int, typer.Option(help="threads that measure; conversion always runs alone", min=1)
    ] = 1,
    chunk: Annotated[
        float | None,
        typer.Option(
            help="convert in chunks of so many milliseconds, as a live stream", show_default=False
        ),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            help="runs the stream's steps: auto, onnx-int8, …; default: plain torch",
            show_default=False,
        ),
    ] = None,
    fit: Fit = None,
    threads: Annotated[int, typer.Option(help="threads that convert", min=1)] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            help="two results: is the second better? Nothing is converted",
            metavar="JSON JSON",
            show_default=False,
        ),
    ] = None,
    where: Annotated[
        bool,
        typer.Option(
            "--where",
            help=(
                "who loses the words: labels, encoder, decoder or converting; plain torch, voices"
                " not fitted"
            ),
        ),
    ] = False,
    bridge: Annotated[
        Path,
        typer.Option(help="for --where: weights that make labels, or a run of `rtvc train bridge`"),
    ] = Path("checkpoints/bridge.safetensors"),
    teacher: Annotated[
        Path | None,
        typer.Option(
            help="for --where: speech by `rtvc teacher generate`, whose content is exact",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Convert a list of recordings and measure the result.

    A killed run goes on where it stopped: what was converted and measured is kept beside the
    result, what was said of the recordings themselves is kept for every later run.

    Examples: rtvc evaluate --more 140 --chunk 25 --backend auto --json result.json --report report

    rtvc evaluate --compare before.json after.json
    """
    import torch

    from rtvc.engine.open import check_engine
    from rtvc.errors import ConfigError
    from rtvc.evaluate.converter import LibraryConverter
    from rtvc.evaluate.pairs import read_pairs
    from rtvc.files import check_folder, check_target

    picture = None if compare is not None or where else picture_of(json)
    if json and picture == json:
        raise ConfigError(f"{json} is the picture's own name, a .json file was wanted")
    for target in (json, picture):
        if target:
            check_target(target, sources=[pairs, *(compare or ())], folders=True)
    if report:
        check_folder(report)
    if backend:
        check_engine(backend)
    if compare is not None:
        show_comparison(*compare, json)
        return
    if where and (chunk, backend, report) != (None, None, None):
        raise ConfigError(
            "--where says whole recordings again in plain torch: leave --chunk, --backend and"
            " --report out"
        )
    if backend is not None and chunk is None:
        raise ConfigError(
            f"--backend {backend} runs the steps of a stream: give --chunk as well, such as"
            " --chunk 25"
        )
    listed = read_pairs(pairs, limit, more)
    torch.set_num_threads(threads)
    if where:
        show_where(LibraryConverter(model, None, device, fit or 0), listed, bridge, teacher, json)
        return

    def open_stepper(steps: "Converter", samples: int) -> "Backend":
        from rtvc.engine.open import open_engine

        return open_engine(steps, str(backend), samples)[0]

    show_evaluation(
        LibraryConverter(model, chunk, device, fit, open_stepper if backend else None),
        listed,
        json,
        report,
        workers,
    )


def picture_of(json: Path | None) -> Path | None:
    """Where the picture of a result goes: beside it, nowhere where the result goes into a
    stream."""
    from rtvc.files import is_stream

    return json.with_suffix(".png") if json and not is_stream(json) else None


def console_beside(json: Path | None) -> "Console":
    """Where tables for people go: standard output, unless the result takes it."""
    from rich.console import Console

    from rtvc.files import is_standard_output

    return Console(stderr=json is not None and is_standard_output(json))


def show_evaluation(
    converter: "LibraryConverter",
    listed: "list[Pair]",
    json: Path | None,
    report: Path | None,
    workers: int,
) -> None:
    """Converts and measures; writes the result, its picture and its page where asked; prints the
    summary."""
    from rtvc.cli.progress import stages
    from rtvc.evaluate.picture import overview
    from rtvc.evaluate.report import write_report
    from rtvc.evaluate.run import conversion, evaluate_pairs
    from rtvc.evaluate.tables import of_result
    from rtvc.files import write_json

    cache, recordings = caches(json)
    picture = picture_of(json)
    console = console_beside(json)
    with stages(["convert", "measure", *(["report"] if report else [])], len(listed)) as advance:
        result = evaluate_pairs(
            converter,
            listed,
            model=converter.name,
            key=converter.key,
            cache=cache,
            recordings=recordings,
            workers=workers,
            progress=advance,
        )
        if json:
            write_json(json, result)
        if picture:
            overview(result, picture)
        if report:
            folder = cache / converter.key
            page = write_report(
                report,
                result,
                listed,
                lambda pair: conversion(converter, pair, folder)[0],
                lambda done, total: advance("report", done, total),
            )
    console.print(of_result(result))
    if picture:
        console.print(f"result: {json}, picture: {picture}", soft_wrap=True)
    if report:
        console.print(f"report: {page}", soft_wrap=True)


def show_comparison(first: Path, second: Path, json: Path | None) -> None:
    """Prints whether the second result is better than the first, metric by metric; writes it where
    asked."""
    from rtvc.evaluate.studies.compare import compare, read_result
    from rtvc.evaluate.tables import of_comparison
    from rtvc.files import write_json

    found = compare(read_result(first), read_result(second))
    if json:
        differences = {
            metric: difference and difference._asdict() for metric, difference in found.items()
        }
        write_json(json, {"before": str(first), "after": str(second), "metrics": differences})
    console_beside(json).print(of_comparison(found, first.stem, second.stem))


def show_where(
    converter: "LibraryConverter",
    listed: "list[Pair]",
    bridge: Path,
    teacher: Path | None,
    json: Path | None,
) -> None:
    """Prints what every row and every step of `rtvc.evaluate.studies.where` gets; writes all of it
    where asked."""
    from rtvc.cli.progress import stages
    from rtvc.evaluate.evaluators import standard
    from rtvc.evaluate.heard import Recordings
    from rtvc.evaluate.provenance import commit, provenance
    from rtvc.evaluate.studies import where
    from rtvc.evaluate.studies.labels import BridgeLabels, TeacherSpeech
    from rtvc.evaluate.tables import of_costs, of_rows
    from rtvc.files import write_json

    code = commit()
    cache, recordings = caches(json)
    labels = BridgeLabels(bridge)
    own: dict[str, where.Labels] = {"labels": labels}
    parts: list[
        tuple[
            str, Sequence[where.Row], Sequence[where.Step], list[Pair], dict[str, where.Labels], str
        ]
    ] = [("recordings", where.ROWS, where.STEPS, listed, own, labels.identity)]
    if teacher is not None:
        speech = TeacherSpeech(teacher, cache / "teacher", len(listed))
        ears = Recordings(standard(), recordings)
        said = speech.pairs(lambda path: ears.heard(path).transcript())
        both = own | {"exact": speech}
        parts.append(
            (
                "teacher's speech",
                where.TEACHER_ROWS,
                where.TEACHER_STEPS,
                said,
                both,
                labels.identity + speech.identity,
            )
        )
    console, result = console_beside(json), {}
    for name, rows, steps, pairs, told, identity in parts:
        with stages([row.title for row in rows], 2 * len(pairs)) as advance:
            found = where.where(
                converter,
                pairs,
                told,
                rows,
                identity=identity,
                cache=cache,
                recordings=recordings,
                progress=advance,
            )
        costs = where.costs(found, steps)
        console.print(of_rows(found, f"{converter.name}, {name}: {len(pairs)}, commit {code}"))
        console.print(of_costs(costs, f"{converter.name}, {name}"))
        result[name] = {
            "rows": found,
            "costs": {
                step: {metric: d and d._asdict() for metric, d in cost.items()}
                for step, cost in costs.items()
            },
        }
    if json:
        write_json(json, {**result, **provenance(), "commit": code, "model": converter.name})
        console.print(f"result: {json}", soft_wrap=True)


def caches(json: Path | None) -> tuple[Path, Path]:
    """Where conversions and what is said of them are kept, beside the result if there is one, and
    where what is said of recordings is."""
    from rtvc.data.registry import cache_dir

    common = cache_dir() / "evaluate"
    beside = json and picture_of(json) and json.parent / f"{json.stem}.cache"
    return beside or common, common / "recordings"
