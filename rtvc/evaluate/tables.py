"""Results as tables for people on a terminal."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rtvc.evaluate.judges.pitch import METHOD
from rtvc.evaluate.report import LABELS, interval, number
from rtvc.evaluate.studies.compare import Difference
from rtvc.evaluate.summary import METRICS

if TYPE_CHECKING:
    from rich.table import Table

STYLES = {"better": "green", "worse": "red", "undecided": "dim"}


def of_result(result: Mapping[str, Any]) -> "Table":
    """The summary of `evaluate_pairs`: metric, mean, 95 % interval."""
    from rich.table import Table

    summary = result["summary"]
    title = (
        f"{result['model']}: {summary['pairs_evaluated']} pairs, {result['date'][:10]}, commit"
        f" {result['commit']}"
    )
    shown = Table("metric", title=title, caption=f"F0 correlation: {METHOD}")
    shown.add_column("mean", justify="right")
    shown.add_column("95 % interval", justify="right")
    for metric in METRICS:
        shown.add_row(
            LABELS[metric],
            number(summary[metric]),
            interval(summary, metric, result["unavailable"]),
        )
    return shown


def of_comparison(differences: Mapping[str, Difference | None], before: str, after: str) -> "Table":
    """What `rtvc.evaluate.studies.compare.compare` found of two results of these names."""
    from rich.table import Table

    counts = [difference.pairs for difference in differences.values() if difference]
    shown = Table("metric", title=f"{after} against {before}: {max(counts, default=0)} pairs")
    for heading in ("before", "after", "change", "95 % interval"):
        shown.add_column(heading, justify="right")
    shown.add_column("verdict")
    for metric, difference in differences.items():
        if difference is None:
            shown.add_row(LABELS[metric], *("–",) * 4, "no values in both")
            continue
        few = "" if difference.pairs == max(counts) else f" ({difference.pairs} pairs)"
        shown.add_row(
            LABELS[metric],
            number(difference.before),
            number(difference.after),
            f"{difference.change:+.3f}",
            spread(difference),
            f"{difference.verdict}{few}",
            style=STYLES[difference.verdict],
        )
    return shown


def of_rows(rows: Mapping[str, Mapping[str, Any]], title: str) -> "Table":
    """What each row of `rtvc.evaluate.studies.where` gets, with 95 % intervals."""
    from rich.table import Table

    shown = Table(title=title)
    shown.add_column("said again")
    for metric in SHOWN:
        shown.add_column(LABELS[metric], justify="right")
    for name, row in rows.items():
        cells = (
            f"{number(row['summary'][metric])}\n{interval(row['summary'], metric, {})}"
            for metric in SHOWN
        )
        shown.add_row(name, *cells)
    return shown


def of_costs(steps: Mapping[str, Mapping[str, Difference | None]], title: str) -> "Table":
    """What each step of `rtvc.evaluate.studies.where` changes, with 95 % intervals; what the
    interval decides is in colour."""
    from rich.table import Table

    shown = Table(title=title)
    shown.add_column("what it costs")
    for metric in SHOWN:
        shown.add_column(LABELS[metric], justify="right")
    for name, differences in steps.items():
        cells = []
        for metric in SHOWN:
            difference = differences[metric]
            text = f"{difference.change:+.3f}\n{spread(difference)}" if difference else "–"
            cells.append(f"[{STYLES[difference.verdict]}]{text}[/]" if difference else text)
        shown.add_row(name, *cells)
    return shown


SHOWN = ("wer", "wer2", "distillmos")
"""Of rows and steps."""


def spread(difference: Difference) -> str:
    """The interval of a change."""
    return f"{difference.low:+.3f} … {difference.high:+.3f}"
