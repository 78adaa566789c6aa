"""`rtvc data codebook | label | align`."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="print the summary as JSON")]


def print_summary(summary: Mapping[str, object], as_json: bool) -> None:
    """Prints a summary on one line."""
    words = (f"{name} {value}" for name, value in summary.items())
    typer.echo(json.dumps(summary) if as_json else "  ".join(words))


@contextmanager
def progress_of(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error, told what is done and of how much."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(what)

        def tell(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield tell


def codebook(
    manifests: Annotated[
        list[Path], typer.Argument(help=".tsv or .jsonl, as `rtvc data prepare` writes it")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="safetensors file")],
    recordings: Annotated[
        int, typer.Option(min=1, help="of each manifest, as many speakers as there are")
    ] = 500,
    as_json: Json = False,
) -> None:
    """Find the units of speech: clusters of a recogniser's layers over some recordings."""
    from rtvc.audio.recording import read
    from rtvc.data.cache import Array
    from rtvc.data.manifest import read_manifest
    from rtvc.errors import AudioError
    from rtvc.files import check_target
    from rtvc.teacher.whisper import Listener
    from rtvc.train.material.units import LAYERS, codebook_of
    from rtvc.train.streaming.pseudo_labels import interleaved

    check_target(out, sources=manifests, folders=True)
    entries = [
        entry
        for manifest in manifests
        for entry in interleaved(read_manifest(manifest))[:recordings]
    ]
    with progress_of("listening") as tell:

        def waves() -> Iterator[Array]:
            for number, entry in enumerate(entries, 1):
                try:
                    yield read(entry.path).clamp(-1, 1).numpy()
                except AudioError as error:
                    typer.echo(f"left out: {error}", err=True)
                tell(number, len(entries))

        centroids = codebook_of(waves(), Listener(LAYERS))
    centroids.save(out)
    layers, clusters, _ = centroids.centroids.shape
    summary = {
        "codebook": str(out),
        "layers": layers,
        "clusters": clusters,
        "recordings": len(entries),
    }
    print_summary(summary, as_json)


def align(
    folder: Annotated[Path, typer.Argument(help="what `rtvc data label --codebook` wrote")],
    phonemes: Annotated[Path, typer.Option(help="a run of `rtvc train phonemes`")] = Path(
        "runs/phonemes"
    ),
    as_json: Json = False,
) -> None:
    """Give every labelled utterance that has a transcript a phoneme for each frame; a stopped run
    goes on."""
    from rtvc.train.streaming.phonemes import align_all

    with progress_of("aligning") as tell:
        aligned = align_all(folder, phonemes, tell)
    summary = {"folder": str(folder), "aligned": aligned}
    typer.echo(json.dumps(summary) if as_json else f"{folder}  aligned {aligned}")


def label(
    manifest: Annotated[
        Path,
        typer.Argument(
            help=".tsv or .jsonl, as `rtvc data prepare` writes it; with --codebook also the folder"
            " of `rtvc teacher generate`"
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="folder for one .npz an utterance")],
    bridge: Annotated[
        Path, typer.Option(help="content and phonemes by a run of `rtvc train bridge`")
    ] = Path("runs/bridge"),
    codebook: Annotated[
        Path | None, typer.Option(help="units by what `rtvc data codebook` made, in their place")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="of the CPU")] = 1,
    as_json: Json = False,
) -> None:
    """Label speech with units, or content and phonemes, and F0; a stopped run goes on, what is
    corrupt goes to OUT/refused.tsv."""
    import torch

    from rtvc.files import check_folder
    from rtvc.train.streaming.pseudo_labels import SwiftF0

    check_folder(out)
    torch.set_num_threads(threads)
    with progress_of("labelling") as tell:
        if codebook is not None:
            from rtvc.teacher.whisper import Listener as LayerListener
            from rtvc.train.material.labelling import label_all as label_units
            from rtvc.train.material.units import LAYERS

            report = label_units(manifest, out, codebook, LayerListener(LAYERS), SwiftF0(), tell)
        else:
            from rtvc.train.streaming.bridge import Listener
            from rtvc.train.streaming.pseudo_labels import label_all

            report = label_all(manifest, out, bridge, Listener(threads=threads), SwiftF0(), tell)
    summary = {
        "folder": str(out),
        "made": report.labelled,
        "found": report.existing,
        "refused": len(report.refused),
        "hours_made": round(report.seconds / 3600, 3),
        "report": str(out / "refused.tsv") if report.refused else None,
    }
    if as_json:
        typer.echo(json.dumps(summary))
        return
    typer.echo(
        "  ".join(
            f"{name.replace('_', ' ')} {value}"
            for name, value in summary.items()
            if value is not None
        )
    )
