"""`rtvc voice create | mix | show`: voice files."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtvc.cli import say
from rtvc.cli.targets import Device, Force, Json, ProsodyFrom, tell

if TYPE_CHECKING:
    from rtvc.voices.voice import Voice

__all__ = ["create", "mix", "show"]

Output = Annotated[
    Path,
    typer.Option("-o", "--output", help="the voice file to write, NAME.voice", show_default=False),
]
Fit = Annotated[
    int | None,
    typer.Option(
        help="steps of fitting voices to their recordings, 60 for instance: more alike, but less"
        " natural; takes seconds",
        min=0,
        show_default="0",
    ),
]


def create(
    output: Output,
    references: Annotated[
        list[Path] | None,
        typer.Argument(help="recordings of the person, or voice files", show_default=False),
    ] = None,
    timbre: Annotated[
        Path | None, typer.Option(help="take the sound of the voice from this recording instead")
    ] = None,
    prosody: ProsodyFrom = None,
    name: Annotated[
        str | None, typer.Option(help="shown to people; default: the file's name")
    ] = None,
    fit: Fit = None,
    model: Annotated[
        str | None, typer.Option(help="stream (default), or a file of weights")
    ] = None,
    device: Device = "cpu",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Make a voice file of one or more recordings, and say how good they are."""
    from rtvc.audio.opening import check_source
    from rtvc.cli.progress import busy
    from rtvc.models_by_name import load
    from rtvc.voices.voice_file import check_voice_file

    given = [*(references or []), *(path for path in (timbre, prosody) if path is not None)]
    for path in given:
        check_source(path)
    check_voice_file(output, sources=given, force=force)
    with busy("making the voice"):
        converter = load(model, device)
        steps = converter.fit_steps(fit)
        voice = converter.voice(
            *(references or []), timbre=timbre, prosody=prosody, name=name or output.stem, fit=steps
        )
    present(voice, voice.save(output), as_json)


def mix(
    output: Output,
    parts: Annotated[
        list[str],
        typer.Argument(
            metavar="VOICE[:WEIGHT]...",
            help="voice files and their weights, a.voice:0.7 b.voice:0.3",
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="shown to people; default: the parts and their shares")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Mix voice files by weight."""
    from rtvc.voices.voice import Voice
    from rtvc.voices.voice_file import check_voice_file

    weights = [weighted(part) for part in parts]
    check_voice_file(output, sources=[path for path, _ in weights], force=force)
    voice = Voice.mix({Voice.load(path): weight for path, weight in weights}, name)
    present(voice, voice.save(output), as_json)


def show(
    voice_file: Annotated[Path, typer.Argument(help="a voice file", show_default=False)],
    as_json: Json = False,
) -> None:
    """Show what a voice file holds and what it came from."""
    from rtvc.voices.voice import Voice

    present(Voice.load(voice_file), voice_file, as_json)


def weighted(part: str) -> tuple[Path, float]:
    """`PATH:WEIGHT` or `PATH` (weight 1) -> the path and the weight."""
    from rtvc.errors import VoiceError
    from rtvc.files import kind

    path, colon, weight = part.rpartition(":")
    if not colon or (kind(part) == "file" and kind(path) != "file"):
        return Path(part), 1.0
    try:
        return Path(path), float(weight)
    except ValueError as error:
        raise VoiceError(
            f"expected VOICE:WEIGHT with a number as the weight, got {part!r}: write it as in"
            " anna.voice:0.7"
        ) from error


def advise(voice: "Voice") -> None:
    """Tells what to do better about the references of a voice, on standard error: for commands that
    do not show the voice itself."""
    for entry in voice.references:
        for line in entry["advice"]:
            say_advice(entry["path"], entry["grade"], line)


def say_advice(path: object, grade: object, line: object) -> None:
    """One piece of advice about a reference, on standard error."""
    say(f"reference {path} is {grade}: {line}", err=True)


def length(entry: dict[str, Any]) -> str:
    """How long a reference is, and how much of it was used."""
    used = entry.get("used")
    cut = isinstance(used, int | float) and used < entry["seconds"] - 0.05
    return f"{entry['seconds']:.1f} s" + (f", {used:.1f} s used" if cut else "")


def present(voice: "Voice", path: Path, as_json: bool) -> None:
    """Prints a voice, its references and the advice about them."""
    from rtvc.files import is_standard_output, kind

    size = path.stat().st_size if kind(path) == "file" else len(voice.content())
    if as_json:
        facts = {"path": str(path), "bytes": size, "name": voice.name, "space": voice.space}
        tell(json.dumps(facts | {"source": voice.source}), path)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from rtvc.printable import printable

    console = Console(highlight=False, stderr=is_standard_output(path))
    fitted = f", fitted to weights {voice.fitted}" if voice.fitted else ""
    maker = voice.space or "an unknown model"
    console.print(
        f"{printable(path, 1000)}: {voice.name}, {size} bytes, made by {maker}{fitted}",
        markup=False,
    )
    for share, part in voice.parts:
        console.print(f"  {share:.0%} {part}", markup=False)
    if not voice.references:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column("reference", overflow="fold")
    headings = ("length", "speech", "noise", "bandwidth", "clipped", "level", "grade")
    for heading in headings:
        table.add_column(heading, no_wrap=heading != "length")
    for entry in voice.references:
        table.add_row(
            escape(entry["path"]),
            length(entry),
            f"{entry['speech']:.1f} s",
            f"{entry['snr']:.0f} dB down",
            f"{entry['bandwidth'] / 1000:.1f} kHz",
            f"{entry['clipped']:.1%}",
            f"{entry['level']:.0f} dBFS",
            escape(entry["grade"]),
        )
    console.print(table)
    for entry in voice.references:
        for line in entry["advice"]:
            console.print(f"{entry['path']}: {line}", markup=False)
