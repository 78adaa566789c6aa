"""`rtvc data codebook | label | align | copies`."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

COPY_CHUNK = 1200
"""Samples a step when copies are made: 50 ms, where a step costs least for its length."""
Json = Annotated[bool, typer.Option("--json", help="print the summary as JSON")]


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
    manifests: Annotated[list[Path], typer.Argument(help=".tsv or .jsonl, as `rtvc data prepare` writes it")],
    out: Annotated[Path, typer.Option("-o", "--out", help="safetensors file")],
    recordings: Annotated[int, typer.Option(min=1, help="of each manifest, as many speakers as there are")] = 500,
    as_json: Json = False,
) -> None:
    """Find the units of speech: clusters of a recogniser's layers over some recordings."""
    from rtvc.audio.io import read
    from rtvc.data.cache import Array
    from rtvc.data.manifest import read_manifest
    from rtvc.errors import AudioError
    from rtvc.files import check_target
    from rtvc.teacher.whisper import Listener
    from rtvc.train.labels import interleaved
    from rtvc.train.material.units import LAYERS, codebook_of

    check_target(out, sources=manifests, folders=True)
    entries = [entry for manifest in manifests for entry in interleaved(read_manifest(manifest))[:recordings]]
    with progress_of("listening") as tell:

        def waves() -> Iterator[Array]:
            for number, entry in enumerate(entries, 1):
                try:
                    yield read(entry.path).clamp(-1, 1).numpy()
                except AudioError as error:
                    typer.echo(f"left out: {error}", err=True)
                tell(number, len(entries))

        made = codebook_of(waves(), Listener(LAYERS))
    made.save(out)
    layers, clusters, _ = made.centroids.shape
    summary = {"codebook": str(out), "layers": layers, "clusters": clusters, "recordings": len(entries)}
    typer.echo(json.dumps(summary) if as_json else "  ".join(f"{name} {value}" for name, value in summary.items()))


def align(
    folder: Annotated[Path, typer.Argument(help="what `rtvc data label --codebook` wrote")],
    phonemes: Annotated[Path, typer.Option(help="a run of `rtvc train phonemes`")] = Path("runs/phonemes"),
    as_json: Json = False,
) -> None:
    """Give every labelled utterance that has a transcript a phoneme for each frame; a stopped run goes on."""
    from rtvc.train.phonemes import align_all

    with progress_of("aligning") as tell:
        aligned = align_all(folder, phonemes, tell)
    summary = {"folder": str(folder), "aligned": aligned}
    typer.echo(json.dumps(summary) if as_json else f"{folder}  aligned {aligned}")


def copies(
    folder: Annotated[Path, typer.Argument(help="what `rtvc data label --codebook` wrote")],
    codebook: Annotated[Path, typer.Option(help="what `rtvc data codebook` made")],
    number: Annotated[int, typer.Option(min=1, help="which copy of every utterance, counted from 1")] = 1,
    backend: Annotated[str, typer.Option(help="runs the steps: onnx-int8, openvino-int8, auto, …")] = "onnx-int8",
    seed: Annotated[int, typer.Option(help="of the choice of voices")] = 0,
    as_json: Json = False,
) -> None:
    """Say every labelled utterance again in another speaker's voice, for an encoder to hear; a stopped run goes on."""
    import torch

    from rtvc.audio.mel import SAMPLE_RATE
    from rtvc.engine.open import open_engine, streaming
    from rtvc.teacher.whisper import Listener
    from rtvc.train.material.copies import make_copies, streaming_convert
    from rtvc.train.material.units import LAYERS, Codebook

    torch.set_num_threads(1)
    model, converter = streaming()
    stepper, _ = open_engine(converter, backend, COPY_CHUNK)
    convert = streaming_convert(converter, COPY_CHUNK, stepper)
    with progress_of("converting") as tell:
        done = make_copies(
            folder,
            convert,
            lambda wave: model.voice((wave, SAMPLE_RATE)),
            Codebook.load(codebook),
            Listener(LAYERS),
            number=number,
            seed=seed,
            progress=tell,
        )
    summary = {"folder": str(folder), "made": done.made, "found": done.found, "differ": done.differ}
    typer.echo(json.dumps(summary) if as_json else "  ".join(f"{name} {value}" for name, value in summary.items()))


def label(
    manifest: Annotated[Path, typer.Argument(help=".tsv or .jsonl, as `rtvc data prepare` writes it")],
    out: Annotated[Path, typer.Option("-o", "--out", help="folder for one .npz an utterance")],
    bridge: Annotated[Path, typer.Option(help="content and phonemes by a run of `rtvc train bridge`")] = Path("runs/bridge"),
    codebook: Annotated[Path | None, typer.Option(help="units by what `rtvc data codebook` made, in their place")] = None,
    threads: Annotated[int, typer.Option(min=1, help="of the CPU")] = 1,
    as_json: Json = False,
) -> None:
    """Label real speech with units, or content and phonemes, and F0; a stopped run goes on, what is corrupt goes to OUT/refused.tsv."""
    import torch

    from rtvc.files import check_folder
    from rtvc.train.labels import SwiftF0

    check_folder(out)
    torch.set_num_threads(threads)
    with progress_of("labelling") as tell:
        if codebook is not None:
            from rtvc.teacher.whisper import Listener as LayerListener
            from rtvc.train.material.labelling import label_all as label_units
            from rtvc.train.material.units import LAYERS

            report = label_units(manifest, out, codebook, LayerListener(LAYERS), SwiftF0(), tell)
        else:
            from rtvc.train.bridge import Listener
            from rtvc.train.labels import label_all

            report = label_all(manifest, out, bridge, Listener(threads=threads), SwiftF0(), tell)
    summary = {
        "folder": str(out),
        "made": report.made,
        "found": report.found,
        "refused": len(report.refused),
        "hours_made": round(report.seconds / 3600, 3),
        "report": str(out / "refused.tsv") if report.refused else None,
    }
    if as_json:
        typer.echo(json.dumps(summary))
        return
    typer.echo("  ".join(f"{name.replace('_', ' ')} {value}" for name, value in summary.items() if value is not None))
