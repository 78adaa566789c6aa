"""`rtvc evaluate`: how intelligible, similar, natural and fast a model's conversions are."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rtvc.cli.targets import AnyModel, Device, Lookahead
from rtvc.cli.voice import Fit
from rtvc.engine.cli.studies import (
    check_clips,
    picture_of,
    show_comparison,
    show_evaluation,
    show_languages,
    show_where,
)

if TYPE_CHECKING:
    from rtvc.engine.backends.base import Backend
    from rtvc.models.streaming.interface import Converter

__all__ = ["evaluate"]

LANGUAGES = 200
"""Recordings that --units converts when it is not said how many."""


def evaluate(
    pairs: Annotated[
        Path,
        typer.Option(help="list of conversions (tab-separated); recordings under eval/ beside it"),
    ] = Path("../shared/corpus/eval_pairs.tsv"),
    model: AnyModel = None,
    lookahead: Lookahead = None,
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
    device: Device = "cpu",
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
    units: Annotated[
        Path | None,
        typer.Option(
            help=(
                "any language: unit error rate of conversions between the speakers of the manifest"
                " --pairs, told in units of this codebook (`rtvc data codebook`)"
            ),
            show_default=False,
        ),
    ] = None,
    clips: Annotated[
        Path | None,
        typer.Option(
            help=(
                "for --units: table that knows the recordings' languages (columns blob, language;"
                " .gz too): they come in turn, and each is told by itself"
            ),
            show_default=False,
        ),
    ] = None,
    language: Annotated[
        list[str] | None,
        typer.Option(help="for --clips: only these, as the table names them; repeatable"),
    ] = None,
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

    rtvc evaluate --units codebook.safetensors --pairs held_out.tsv --limit 200

    rtvc evaluate --units … --pairs held_out.tsv --clips clips.tsv.gz --language fr --language nl
    """
    import torch

    from rtvc.engine.open import check_engine
    from rtvc.errors import ConfigError
    from rtvc.evaluate.converter import LibraryConverter
    from rtvc.evaluate.pairs import read_pairs
    from rtvc.files import check_folder, check_target

    picture = None if compare is not None or where or units else picture_of(json)
    if json and picture == json:
        raise ConfigError(f"expected a .json file, {json} is the picture's own name")
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
    check_clips(units, clips, language)
    torch.set_num_threads(threads)
    if units is not None:
        converter = LibraryConverter(model, None, device, fit or 0, lookahead=lookahead)
        show_languages(converter, pairs, units, limit or LANGUAGES, json, clips, language or ())
        return
    listed = read_pairs(pairs, limit, more)
    if where:
        show_where(
            LibraryConverter(model, None, device, fit or 0, lookahead=lookahead),
            listed,
            bridge,
            teacher,
            json,
        )
        return

    def open_stepper(steps: "Converter", samples: int) -> "Backend":
        from rtvc.engine.open import open_engine

        return open_engine(steps, str(backend), samples)[0]

    show_evaluation(
        LibraryConverter(model, chunk, device, fit, open_stepper if backend else None, lookahead),
        listed,
        json,
        report,
        workers,
    )
