"""`rtvc teacher say | pair | voices | generate`: speech by the teacher."""

import csv
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rtvc.cli.targets import Device, Json
from rtvc.cli.targets import tell as printed
from rtvc.files import is_standard_output

if TYPE_CHECKING:
    from rtvc.teacher.kokoro import Teacher

__all__ = ["generate", "pair", "say", "voices"]

Text = Annotated[
    str, typer.Argument(help="what to say, in English; IPA with --ipa", show_default=False)
]
MixOption = Annotated[
    str, typer.Option("--voice", help="a voice or a weighted mix, af_heart:0.7,am_adam:0.3")
]
Prosody = Annotated[
    str | None,
    typer.Option(help="voice or mix of the prosody; default: that of --voice", show_default=False),
]
Speed = Annotated[float, typer.Option(help="1 is natural")]
Seed = Annotated[int, typer.Option(help="of the noise; the same gives the same speech")]
Ipa = Annotated[bool, typer.Option("--ipa", help="the text is IPA")]


def say(
    text: Text,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="the sound file to write", show_default=False)
    ],
    voice: MixOption = "af_heart",
    prosody: Prosody = None,
    speed: Speed = 1.0,
    seed: Seed = 0,
    ipa: Ipa = False,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Say a text in a voice, or in a mix of voices."""
    from rtvc.audio.io import check_output, write
    from rtvc.cli.progress import busy

    check_output(output)
    with busy("speaking"):
        speech = opened(device).say(text, voice, prosody=prosody, speed=speed, seed=seed, ipa=ipa)
    write(output, speech.waveform[0].float().cpu())
    seconds = round(speech.waveform.shape[1] / 24000, 3)
    tell({"output": str(output), "seconds": seconds}, as_json, output)


def pair(
    text: Text,
    outputs: Annotated[
        tuple[Path, Path],
        typer.Option("-o", "--outputs", help="the two sound files to write", show_default=False),
    ],
    to: Annotated[str, typer.Option(help="voice or mix of the second file", show_default=False)],
    voice: MixOption = "af_heart",
    prosody: Prosody = None,
    speed: Speed = 1.0,
    seed: Seed = 0,
    ipa: Ipa = False,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Say a text in two voices with the same timing, pitch and energy: a frame-aligned parallel
    pair."""
    from rtvc.audio.io import check_output, write
    from rtvc.errors import ConfigError

    if os.path.realpath(outputs[0]) == os.path.realpath(outputs[1]):
        raise ConfigError(f"expected two files, got {outputs[0]} twice")
    for output in outputs:
        check_output(output)
    teacher = opened(device)
    first = teacher.say(text, voice, prosody=prosody, speed=speed, seed=seed, ipa=ipa)
    second = teacher.revoice(first, to, seed=seed)
    paths = [
        str(write(path, speech.waveform[0].float().cpu()))
        for path, speech in zip(outputs, (first, second), strict=True)
    ]
    seconds = round(first.waveform.shape[1] / 24000, 3)
    tell({"outputs": paths, "seconds": seconds}, as_json, *outputs)


def voices(as_json: Json = False) -> None:
    """List the voices: language and gender are the first two letters of a name."""
    from rtvc.teacher.weights import voice_names

    names = voice_names()
    typer.echo(json.dumps(names) if as_json else "\n".join(names))


def generate(
    out: Annotated[Path, typer.Argument(help="folder for INDEX.npz files", show_default=False)],
    texts: Annotated[
        Path,
        typer.Option(
            help="English texts: one a line, or a .tsv with a column transcript or text",
            show_default=False,
        ),
    ],
    count: Annotated[
        int,
        typer.Option(
            help="utterances of the whole corpus, 5 s each on average", show_default=False
        ),
    ],
    seed: Annotated[int, typer.Option(help="of the corpus")] = 0,
    part: Annotated[int, typer.Option(help="which of --parts this process makes, from 0")] = 0,
    parts: Annotated[int, typer.Option(help="processes that share the work")] = 1,
    skip: Annotated[
        str | None,
        typer.Option(help="leave out speakers of a .tsv whose name begins so", show_default=False),
    ] = None,
    engine: Annotated[str, typer.Option(help="torch, onnx or auto, the faster one")] = "auto",
    device: Device = "cpu",
    threads: Annotated[int, typer.Option(help="of the CPU")] = 1,
    as_json: Json = False,
) -> None:
    """Make a corpus of labelled speech in random mixes of voices; a stopped run goes on where it
    was."""
    import torch
    from rich.console import Console
    from rich.progress import Progress

    from rtvc.files import check_folder
    from rtvc.teacher import corpus
    from rtvc.teacher.engines import open_engine

    check_folder(out)
    torch.set_num_threads(threads)
    sentences = read_texts(texts, skip)
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("speaking", total=len(range(part, count, parts)))

        def report(done: corpus.Progress) -> None:
            speed = done.speech / done.elapsed
            progress.update(
                task,
                completed=done.existing + done.written,
                description=f"speaking, {speed:.1f}x real time",
            )

        done = corpus.generate(
            out,
            sentences,
            count,
            open_engine(engine, device, threads),
            seed=seed,
            part=part,
            parts=parts,
            report=report,
        )
    tell(
        {
            "folder": str(out),
            "made": done.written,
            "found": done.existing,
            "speech": round(done.speech, 2),
            "elapsed": round(done.elapsed, 2),
        },
        as_json,
    )


def read_texts(path: Path, skip: str | None) -> list[str]:
    """Lines of a text file, or the transcripts of a .tsv."""
    from rtvc.errors import TextError

    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise TextError(
            f"{path} cannot be read as UTF-8 text ({error}): give one text a line, or a .tsv with a"
            " column transcript"
        ) from error
    if path.suffix == ".jsonl":
        from rtvc.data.manifest import read_manifest

        listed = (entry for entry in read_manifest(path) if entry.text)
        return [e.text for e in listed if not (skip and e.speaker.startswith(skip))]
    if path.suffix != ".tsv":
        return content.splitlines()
    rows = csv.DictReader(content.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    column = next(
        (name for name in ("transcript", "text") if name in (rows.fieldnames or ())), None
    )
    if column is None:
        raise TextError(
            f"expected a column transcript or text, {path} has"
            f" {', '.join(rows.fieldnames or ())}: name one so"
        )
    return [
        row[column]
        for row in rows
        if row[column] and not (skip and (row.get("speaker") or "").startswith(skip))
    ]


def opened(device: str) -> "Teacher":
    """The imported teacher in float32."""
    from rtvc.teacher.kokoro import Teacher

    return Teacher.load(device=device)


def tell(result: dict[str, object], as_json: bool, *outputs: Path) -> None:
    """Prints a result, a line an entry, or as JSON; beside standard output where that is
    written."""
    lines = "\n".join(f"{name}: {value}" for name, value in result.items())
    taken = next((output for output in outputs if is_standard_output(output)), None)
    printed(json.dumps(result) if as_json else lines, taken)
