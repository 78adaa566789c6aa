"""What `rtvc evaluate` shows and writes: an evaluation, a comparison, where words are lost, other
languages."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from rtvc.evaluate.converter import LibraryConverter
    from rtvc.evaluate.pairs import Pair

__all__ = [
    "check_clips",
    "picture_of",
    "show_comparison",
    "show_evaluation",
    "show_languages",
    "show_where",
]


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

    comparison = compare(read_result(first), read_result(second))
    if json:
        differences = {
            metric: difference and difference._asdict() for metric, difference in comparison.items()
        }
        write_json(json, {"before": str(first), "after": str(second), "metrics": differences})
    console_beside(json).print(of_comparison(comparison, first.stem, second.stem))


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
    from rtvc.errors import ConfigError
    from rtvc.evaluate.evaluators import standard
    from rtvc.evaluate.measurements import Recordings
    from rtvc.evaluate.provenance import commit, provenance
    from rtvc.evaluate.studies import where
    from rtvc.evaluate.studies.labels import BridgeLabels, LongestLookahead, TeacherSpeech
    from rtvc.evaluate.tables import of_costs, of_rows
    from rtvc.files import write_json
    from rtvc.models.streaming.dial import DialConverter

    code = commit()
    cache, recordings = caches(json)
    parts: list[
        tuple[
            str, Sequence[where.Row], Sequence[where.Step], list[Pair], dict[str, where.Labels], str
        ]
    ]
    if isinstance(converter.streaming, DialConverter):
        if teacher is not None:
            raise ConfigError(
                "the teacher's exact content is none that a converter with a latency dial reads:"
                " leave --teacher out"
            )
        longest = LongestLookahead(converter.streaming)
        dial: dict[str, where.Labels] = {"longest": longest}
        parts = [("recordings", where.DIAL_ROWS, where.DIAL_STEPS, listed, dial, longest.identity)]
    else:
        labels = BridgeLabels(bridge)
        own: dict[str, where.Labels] = {"labels": labels}
        parts = [("recordings", where.ROWS, where.STEPS, listed, own, labels.identity)]
    if teacher is not None:
        speech = TeacherSpeech(teacher, cache / "teacher", len(listed))
        ears = Recordings(standard(), recordings)
        teacher_pairs = speech.pairs(lambda path: ears.measurements(path).transcript())
        both = own | {"exact": speech}
        parts.append(
            (
                "teacher's speech",
                where.TEACHER_ROWS,
                where.TEACHER_STEPS,
                teacher_pairs,
                both,
                labels.identity + speech.identity,
            )
        )
    console, result = console_beside(json), {}
    for name, rows, steps, pairs, told, identity in parts:
        with stages([row.title for row in rows], 2 * len(pairs)) as advance:
            results = where.where(
                converter,
                pairs,
                told,
                rows,
                identity=identity,
                cache=cache,
                recordings=recordings,
                progress=advance,
            )
        costs = where.costs(results, steps)
        console.print(of_rows(results, f"{converter.name}, {name}: {len(pairs)}, commit {code}"))
        console.print(of_costs(costs, f"{converter.name}, {name}"))
        result[name] = {
            "rows": results,
            "costs": {
                step: {metric: d and d._asdict() for metric, d in cost.items()}
                for step, cost in costs.items()
            },
        }
    if json:
        write_json(json, {**result, **provenance(), "commit": code, "model": converter.name})
        console.print(f"result: {json}", soft_wrap=True)


def check_clips(units: Path | None, clips: Path | None, requested: Sequence[str] | None) -> None:
    """Refuses languages where nothing tells them.

    Raises:
        ConfigError: a table of clips without units, or languages without a table of clips.
    """
    from rtvc.errors import ConfigError

    if (clips and units is None) or (requested and clips is None):
        raise ConfigError(
            "languages are told by a table of clips and measured in units of speech: give --units"
            " and --clips as well"
        )


def show_languages(
    converter: "LibraryConverter",
    manifest: Path,
    codebook: Path,
    count: int,
    json: Path | None,
    clips: Path | None = None,
    requested: Sequence[str] = (),
) -> None:
    """Prints the unit error rate of conversions between a manifest's speakers, and that of each
    language where `clips` tells them; writes it where asked."""
    from rtvc.audio.recording import read
    from rtvc.cli.progress import stages
    from rtvc.data.manifest import read_manifest
    from rtvc.evaluate.provenance import commit, provenance
    from rtvc.evaluate.studies.languages import chosen, languages, of_languages, spoken, unknown
    from rtvc.files import write_json
    from rtvc.teacher.whisper import Listener
    from rtvc.train.material.units import LAYERS, Codebook

    book, listen = Codebook.load(codebook), Listener(LAYERS)
    language = spoken(clips) if clips else unknown
    entries = read_manifest(manifest)
    if requested:
        entries = of_languages(entries, language, requested)
    pairs = chosen(entries, count, language=language)
    with stages(["convert"], len(pairs)) as advance:
        result = languages(
            converter,
            pairs,
            lambda wave: book.units(listen(wave))[-1].tolist(),
            lambda path: read(path).numpy(),
            lambda done, total: advance("convert", done, total),
            language,
        )
    if json:
        figures = result._asdict()
        figures["said"] = [each._asdict() for each in figures.pop("conversions")]
        note = {**provenance(), "commit": commit(), "model": converter.name}
        write_json(json, {**figures, **note})
    low, high = result.error_ci95
    console = console_beside(json)
    for name, (recordings, error, chance) in result.of_each().items() if clips else ():
        console.print(
            f"{name}: {error:.3f} of {recordings} recordings; of another {chance:.3f}", markup=False
        )
    console.print(
        f"{converter.name}: unit error rate {result.error:.3f} ({low:.3f} … {high:.3f}) of"
        f" {result.recordings} recordings; of another recording {result.chance:.3f}"
    )


def caches(json: Path | None) -> tuple[Path, Path]:
    """Where conversions and what is said of them are kept, beside the result if there is one, and
    where what is said of recordings is."""
    from rtvc.data.registry import cache_dir

    common = cache_dir() / "evaluate"
    beside = json and picture_of(json) and json.parent / f"{json.stem}.cache"
    return beside or common, common / "recordings"
