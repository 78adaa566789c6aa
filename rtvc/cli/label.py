"""`rtvc data label`."""

import json
from pathlib import Path
from typing import Annotated

import typer


def label(
    manifest: Annotated[Path, typer.Argument(help=".tsv or .jsonl, as `rtvc data prepare` writes it")],
    out: Annotated[Path, typer.Option("-o", "--out", help="folder for one .npz an utterance")],
    bridge: Annotated[Path, typer.Option(help="a run of `rtvc train bridge`")] = Path("runs/bridge"),
    threads: Annotated[int, typer.Option(min=1, help="of the CPU")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="print the summary as JSON")] = False,
) -> None:
    """Label real speech with content, phonemes and F0; a stopped run goes on, what is corrupt goes to OUT/refused.tsv."""
    import torch
    from rich.console import Console
    from rich.progress import Progress

    from rtvc.files import check_folder
    from rtvc.train.bridge import Listener
    from rtvc.train.labels import SwiftF0, label_all

    check_folder(out)
    torch.set_num_threads(threads)
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("labelling")

        def tell(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

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
