"""`rtvc data prepare | select | codebook | label | align | show`."""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from rtvc.cli.label import align, codebook, label
from rtvc.cli.select import select
from rtvc.cli.targets import Force

__all__ = ["align", "codebook", "label", "prepare", "select", "show"]


def prepare(
    source: Annotated[
        Path,
        typer.Argument(
            help=(
                "folder of recordings (VCTK, LibriTTS, LibriSpeech or any), or a .tsv, .jsonl or"
                " VITS table"
            )
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="manifest to write, .tsv or .jsonl")],
    phonemes: Annotated[
        bool, typer.Option("--phonemes/--no-phonemes", help="make IPA of the texts")
    ] = True,
    language: Annotated[str, typer.Option(help="of the texts, as eSpeak NG names it")] = "en-us",
    shortest: Annotated[float, typer.Option(help="seconds")] = 1.0,
    longest: Annotated[float, typer.Option(help="seconds")] = 30.0,
    snr: Annotated[
        float, typer.Option(help="lowest speech-to-noise ratio in dB; 0 accepts all")
    ] = 0.0,
    jobs: Annotated[int, typer.Option(min=1, help="files checked at once")] = 2,
    force: Force = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the summary as JSON")] = False,
) -> None:
    """Check every recording and write a manifest; what is refused goes to OUT.refused.tsv with the
    reason."""
    from rich.console import Console
    from rich.progress import Progress

    from rtvc.data.manifest import Entry, check_manifest, write_manifest
    from rtvc.data.prepare import Limits, Refusal, check_all, find, with_phonemes, write_refusals
    from rtvc.errors import TrainingError

    report = out.with_name(out.name + ".refused.tsv")
    for target in (out, report):
        check_manifest(target, sources=[source], force=force)
    console = Console(stderr=True)
    entries = find(source)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("checking", total=len(entries))
        limits = Limits(shortest, longest, snr)
        kept, refused = check_all(entries, limits, jobs, lambda: progress.advance(task), out.suffix)
    if phonemes:
        spoken = list(with_phonemes(kept, language))
        kept = [entry for entry in spoken if isinstance(entry, Entry)]
        refused += [entry for entry in spoken if isinstance(entry, Refusal)]
    if refused:
        write_refusals(report, refused)
    if not kept:
        raise TrainingError(f"every recording of {source} was refused, see {report}")
    write_manifest(out, kept)
    reasons = Counter(reason_kind(refusal.reason) for refusal in refused)
    summary = {
        "manifest": str(out),
        "recordings": len(kept),
        "hours": round(sum(entry.seconds for entry in kept) / 3600, 4),
        "speakers": len({entry.speaker for entry in kept}),
        "with_text": sum(bool(entry.text) for entry in kept),
        "with_phonemes": sum(bool(entry.phonemes) for entry in kept),
        "bandwidth_rates": dict(
            sorted(Counter(str(entry.bandwidth_rate) for entry in kept).items())
        ),
        "refused": len(refused),
        "reasons": dict(reasons.most_common()),
        "report": str(report) if refused else None,
    }
    tell(summary, as_json)


def show(
    manifest: Annotated[Path, typer.Argument(help=".tsv or .jsonl")],
    as_json: Annotated[bool, typer.Option("--json", help="print as JSON")] = False,
) -> None:
    """What a manifest holds."""
    from rtvc.data.manifest import read_manifest

    entries = read_manifest(manifest)
    seconds: dict[str, float] = {}
    for entry in entries:
        seconds[entry.speaker] = seconds.get(entry.speaker, 0.0) + entry.seconds
    summary = {
        "manifest": str(manifest),
        "recordings": len(entries),
        "hours": round(sum(seconds.values()) / 3600, 4),
        "speakers": len(seconds),
        "with_text": sum(bool(entry.text) for entry in entries),
        "with_phonemes": sum(bool(entry.phonemes) for entry in entries),
        "missing_files": sum(not entry.path.is_file() for entry in entries),
        "longest_speakers": {
            name: round(value, 1)
            for name, value in sorted(seconds.items(), key=lambda item: -item[1])[:5]
        },
    }
    tell(summary, as_json)


def reason_kind(reason: str) -> str:
    """A reason without its figures, for counting."""
    words = (
        "not readable",
        "not UTF-8",
        "lasts",
        "silent",
        "clipped",
        "cannot be read",
        "cut off",
        "line break",
        "NaN",
        "noise",
        "phonemes",
        "empty",
        "not there",
    )
    return next((word for word in words if word in reason), reason.split(":")[0])


def tell(summary: dict[str, object], as_json: bool) -> None:
    """Prints a summary for people or for programs."""
    if as_json:
        typer.echo(json.dumps(summary, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for key, value in summary.items():
        if value not in (None, {}):
            shown = (
                "  ".join(f"{k}: {v}" for k, v in value.items())
                if isinstance(value, dict)
                else str(value)
            )
            table.add_row(key.replace("_", " "), shown)
    Console().print(table, highlight=False)
