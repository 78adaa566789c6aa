"""Results of benchmarks: one JSON file a machine, compared, shown as a table and as a picture."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rtvc.errors import ConfigError
from rtvc.evaluate.provenance import provenance
from rtvc.files import check_target, is_stream, kind, read_json, write

Row = dict[str, Any]
KEY = ("component", "backend", "threads", "chunk_ms")
"""What tells two rows of one file apart."""
PICTURES = ("png", "svg", "pdf")


def folder() -> Path:
    """`benchmarks/results` of the checkout, or of the working directory."""
    here = Path(__file__).resolve().parent / "results"
    return here if here.is_dir() else Path("benchmarks/results")


def machine_name(content: dict[str, Any]) -> str:
    """A file name for a machine: its CPU, its cores, its GPU if any."""
    parts = [
        str(content["machine"].get("cpu") or "cpu"),
        f"{content['machine'].get('cores')}-cores",
        str(content["machine"].get("gpu") or ""),
    ]
    return re.sub(r"[^a-z0-9]+", "-", " ".join(parts).lower()).strip("-")


def save(rows: Sequence[Row], path: Path | None = None, *, kind: str = "components") -> Path:
    """Merges rows into a machine's file, newer rows in place of older ones of the same key; returns
    its path.

    Args:
        rows: measurements.
        path: the file; by default `benchmarks/results/<machine>.json`.
        kind: the list they go to: `results` for components, else a list of that name.
    """
    about = provenance()
    target = folder() / f"{machine_name(about)}.json" if path is None else path
    known = read(target) if exists(target) else {}
    name = "results" if kind == "components" else kind
    fresh = {tuple(row.get(part) for part in KEY) for row in rows} if kind == "components" else None
    kept = [
        row
        for row in known.get(name, [])
        if fresh is not None and tuple(row.get(part) for part in KEY) not in fresh
    ]
    whole = {**known, **about, name: [*kept, *rows]}
    write(target, json.dumps(whole, indent=1) + "\n")
    return target


def check(path: Path | None) -> None:
    """To be asked before measuring: whether `save` can write there.

    Raises:
        ConfigError: a file is there that is no results file.
        OutputError: nothing can be written there.
    """
    if path is None:
        check_target(folder() / "machine.json", folders=True)
        return
    check_target(path, folders=True)
    if exists(path):
        read(path)


def exists(path: Path) -> bool:
    """Whether a file with anything in it is there."""
    return kind(path) == "file" and path.stat().st_size > 0


def read(path: Path) -> dict[str, Any]:
    """A results file.

    Raises:
        ConfigError: when it is missing or no results file.
    """
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} is no results file ({error}): name one that `rtvc bench` wrote"
        ) from error
    if not isinstance(content, dict) or "machine" not in content:
        raise ConfigError(f"{path} is no results file: name one that `rtvc bench` wrote")
    return content


def table(content: dict[str, Any]) -> str:
    """The component results as a Markdown table, with the ratio to torch-eager of the same file."""
    rows = content.get("results", [])
    base = {
        (r["component"], r["threads"], r["chunk_ms"]): r["p50_ms"]
        for r in rows
        if r["backend"] == "torch-eager"
    }
    lines = [
        "| component | backend | threads | ms | p50 ms | p95 | p99 | RTF | eager / this |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in sorted(
        rows,
        key=lambda r: (
            r["component"] != "step",
            r["component"],
            r["chunk_ms"],
            r["threads"],
            r["backend"],
        ),
    ):
        eager = base.get((r["component"], r["threads"], r["chunk_ms"]))
        ratio = f"{eager / r['p50_ms']:.1f}x" if eager and r["p50_ms"] else ""
        times = (r[f"{name}_ms"] for name in ("p50", "p95", "p99"))
        shown = (f"{time:.{1 if time >= 10 else 2}f}" for time in times)  # fits 80 columns
        numbers = f"{' | '.join(shown)} | {r['rtf']:.2g}"
        lines.append(
            f"| {r['component']} | {r['backend']} | {r['threads']} | {r['chunk_ms']:g} | {numbers}"
            f" | {ratio} |"
        )
    return "\n".join(lines)


def compare(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What became faster or slower between two files, rows of equal key, as a Markdown table."""
    before = {tuple(r[part] for part in KEY): r for r in old.get("results", [])}
    lines = [
        "| component | backend | threads | chunk ms | p50 before | p50 now | change |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in new.get("results", []):
        was = before.get(tuple(r[part] for part in KEY))
        if was is not None and was["p50_ms"]:
            change = f"{100 * (r['p50_ms'] / was['p50_ms'] - 1):+.0f} %"
            what = f"| {r['component']} | {r['backend']} | {r['threads']} | {r['chunk_ms']:g}"
            lines.append(f"{what} | {was['p50_ms']:.2f} | {r['p50_ms']:.2f} | {change} |")
    return "\n".join(lines)


def picture(content: dict[str, Any], path: Path) -> None:
    """The step's median time by backend and chunk size, as a picture; the line is real time.

    Raises:
        ConfigError: when the file holds no steps.
    """
    steps = [r for r in content.get("results", []) if r["component"] == "step"]
    if not steps:
        raise ConfigError("the results hold no step: run `rtvc bench components` first")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    chunks = sorted({r["chunk_ms"] for r in steps})
    for backend in sorted({r["backend"] for r in steps}):
        own = {
            r["chunk_ms"]: r["p50_ms"]
            for r in steps
            if r["backend"] == backend and r["threads"] == 1
        }
        axis.plot(
            [c for c in chunks if c in own],
            [own[c] for c in chunks if c in own],
            marker="o",
            label=backend,
        )
    axis.plot(chunks, chunks, color="grey", linestyle=":", label="real time")
    axis.set(
        xlabel="chunk (ms)",
        ylabel="median time of a step (ms)",
        yscale="log",
        title=str(content["machine"].get("cpu")),
    )
    axis.legend()
    form = picture_format(path)
    write(path, lambda sink: figure.savefig(sink, format=form))


def picture_format(path: Path) -> str:
    """The format of a picture, by its suffix; PNG for a pipe or device.

    Raises:
        ConfigError: a suffix that is none of a picture.
    """
    form = path.suffix.removeprefix(".").lower() or ("png" if is_stream(path) else "")
    if form not in PICTURES:
        raise ConfigError(f"expected a name that ends in .{', .'.join(PICTURES)}, got {path}")
    return form
