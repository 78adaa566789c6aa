"""Results of the GPU suite as Markdown: `python -m rtvc.benchmarks.gpu.table
benchmarks/results/GPU.json`.

Imports nothing but the standard library.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

GOALS = {"large": 0.8, "streaming": 0.5, "step_ms": 2.0, "streams": 1000}
"""Of the bandwidth floor at least; of `torch.compile`'s time at most; at batch 1 at most; at
least."""


def results(record: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The results of the finished parts below a prefix, by the rest of their names."""
    parts = record["parts"].items()
    return {
        name.removeprefix(prefix): part["result"]
        for name, part in parts
        if name.startswith(prefix) and part["status"] == "done"
    }


def number(value: Any, digits: int = 3) -> str:
    """A figure, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:.0f}"


def fastest(row: dict[str, Any]) -> dict[str, Any]:
    """The kernel's best implementation on the device; empty without a GPU."""
    timed = [row[way] for way in ("triton", "cuda", "operator") if "device_us" in row.get(way, {})]
    return min(timed, key=lambda way: float(way["device_us"]), default={})


def kernels(record: dict[str, Any]) -> list[str]:
    """Device time of every kernel against eager and `torch.compile`, and its share of the floor."""
    lines = [
        "| kernel | case | dtype | ours us | eager us | compile us | ours / compile | share of the"
        " copy's speed |"
    ]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for row in (row for rows in results(record, "kernels/").values() for row in rows):
        ours, eager, compiled = (
            fastest(row),
            *(row.get(way, {}).get("device_us") for way in ("eager", "compile")),
        )
        ratio = ours["device_us"] / compiled if ours and compiled else None
        figures = (ours.get("device_us"), eager, compiled, ratio, ours.get("share_of_floor"))
        lines.append(
            f"| {row['kernel']} | {row['case']} | {row['dtype']} | "
            + " | ".join(map(number, figures))
            + " |"
        )
    return lines


def ladders(record: dict[str, Any], prefix: str) -> list[str]:
    """Median milliseconds by batch size, as launched and as a CUDA graph."""
    parts = results(record, prefix)
    batches = sorted({row["batch"] for rows in parts.values() for row in rows})
    lines = [
        "| " + " | ".join(["", "", *map(str, batches)]) + " |",
        "|---|---|" + "---|" * len(batches),
    ]
    for name, rows in parts.items():
        by_batch = {row["batch"]: row for row in rows}
        for key, how in (("p50_ms", "launched"), ("graph_p50_ms", "graph")):
            if any(key in row for row in rows):
                lines.append(
                    f"| {name} | {how} | "
                    + " | ".join(number(by_batch.get(batch, {}).get(key)) for batch in batches)
                    + " |"
                )
    return lines


def streams(record: dict[str, Any]) -> list[str]:
    """Sessions whose 99th percentile fits the tick."""
    lines = [
        "| backend | streams through the pool | streams by steps alone | p99 ms there |",
        "|---|---|---|---|",
    ]
    for name, result in results(record, "streams/").items():
        last: dict[str, Any] = next((row for row in reversed(result["rows"]) if row["fits"]), {})
        lines.append(
            f"| {name} | {result['sustained']} | {result['by_steps']} |"
            f" {number(last.get('tick_p99_ms'))} |"
        )
    return lines


def goals(record: dict[str, Any]) -> list[str]:
    """Each goal, and what was reached."""
    lines = []
    for row in (
        row
        for rows in results(record, "kernels/").values()
        for row in rows
        if row["kernel"] in ("adain", "istft")
    ):
        ours, name = fastest(row), f"{row['kernel']} {row['case']} {row['dtype']}"
        share, compiled = ours.get("share_of_floor"), row.get("compile", {}).get("device_us")
        if row["size"] == "large" and share is not None:
            lines.append(
                f"- {verdict(share >= GOALS['large'])}: {name}, {share:.0%} of the copy's speed"
                " (80 %)"
            )
        if row["size"] == "streaming" and ours and compiled is not None:
            ratio = ours["device_us"] / compiled
            lines.append(
                f"- {verdict(ratio <= GOALS['streaming'])}: {name}, {ratio:.2f} of torch.compile's"
                " time (0.5)"
            )
    steps = [
        row.get("graph_p50_ms", row.get("p50_ms"))
        for rows in results(record, "step/").values()
        for row in rows
        if row["batch"] == 1
    ]
    if any(value is not None for value in steps):
        best = min(value for value in steps if value is not None)
        lines.append(
            f"- {verdict(best <= GOALS['step_ms'])}: {best:.2f} ms a step at batch 1 (2 ms)"
        )
    sustained = [result["sustained"] for result in results(record, "streams/").values()]
    if sustained:
        lines.append(
            f"- {verdict(max(sustained) >= GOALS['streams'])}: {max(sustained)} concurrent streams"
            " (1,000)"
        )
    return lines


def verdict(reached: bool) -> str:
    """In words."""
    return "reached" if reached else "missed"


def table(record: dict[str, Any]) -> str:
    """The whole page."""
    where = (
        "dry run on a CPU: no figure here says anything of a GPU"
        if record["dry_run"]
        else record["gpu"]
    )
    wrong = [
        name for name, result in results(record, "correctness/").items() if not result["right"]
    ]
    others = [
        f"- {name}: {part['status']}, {part.get('error', '')}"
        for name, part in record["parts"].items()
        if part["status"] != "done"
    ]
    checked = len(results(record, "correctness/"))
    lines = [
        f"## {where}",
        f"Commit {record.get('commit')}, {record.get('date')}, {record.get('versions')}",
        "",
    ]
    lines += [
        f"Correct: {checked - len(wrong)} of {checked}"
        + (f"; wrong: {', '.join(wrong)}" if wrong else ""),
        "",
    ]
    if not record["dry_run"]:
        lines += ["### Goals", *goals(record), ""]
    lines += [
        "### Kernels",
        *kernels(record),
        "",
        "### The streaming step, ms",
        *ladders(record, "step/"),
        "",
        "### Streams",
        *streams(record),
        "",
    ]
    lines += ["### Components of the streaming model, ms", *ladders(record, "components/"), ""]
    lines += [
        "### The paper's model, 2.4 s a row, ms",
        *ladders(record, "paper/"),
        "",
        "### Not measured",
        *others,
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the page of every file."""
    for path in sys.argv[1:] if arguments is None else arguments:
        print(table(json.loads(Path(path).read_text())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
