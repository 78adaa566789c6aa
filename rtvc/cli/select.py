"""`rtvc data select`."""

from pathlib import Path
from typing import Annotated

import typer

from rtvc.cli.label import Json, print_summary, progress_of
from rtvc.cli.targets import Force


def select(
    manifest: Annotated[
        Path, typer.Argument(help=".tsv or .jsonl, as `rtvc data prepare` writes it")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="manifest to write, .tsv or .jsonl")],
    dnsmos: Annotated[
        float, typer.Option(min=1, max=5, help="lowest overall quality that is accepted")
    ] = 2.7,
    per_speaker: Annotated[
        int, typer.Option(min=0, help="most recordings of a speaker; 0: all")
    ] = 0,
    bandwidth: Annotated[
        int, typer.Option(min=0, help="lowest bandwidth_rate that is accepted, Hz")
    ] = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Keep the recordings that sound clean enough to learn from: opinions by DNSMOS, kept in
    MANIFEST.dnsmos.jsonl; a stopped run goes on, what is refused goes to OUT.refused.tsv.

    Example: rtvc data select extra/train.tsv -o extra/clean.tsv --dnsmos 2.8 --per-speaker 8
    """
    from rtvc.data.manifest import check_manifest, read_manifest, write_manifest
    from rtvc.data.prepare import write_refusals
    from rtvc.errors import TrainingError
    from rtvc.evaluate.judges.quality import dnsmos as judged
    from rtvc.evaluate.selection import Opinions, summary_of
    from rtvc.evaluate.selection import select as selected_of
    from rtvc.train.streaming.pseudo_labels import interleaved

    refusals = out.with_name(out.name + ".refused.tsv")
    for target in (out, refusals):
        check_manifest(target, sources=[manifest], force=force)
    entries = interleaved(read_manifest(manifest))
    opinions = Opinions(
        manifest.with_name(manifest.name + ".dnsmos.jsonl"), lambda wave: judged(wave)["ovrl"]
    )
    with progress_of("listening") as tell:
        selected = selected_of(entries, opinions, dnsmos, per_speaker, bandwidth, tell)
    if selected.refused:
        write_refusals(refusals, selected.refused)
    if not selected.kept:
        raise TrainingError(
            f"no recording of {manifest} is good enough, see {refusals}: lower --dnsmos"
        )
    write_manifest(out, selected.kept)
    print_summary({"manifest": str(out), **summary_of(selected)}, as_json)
