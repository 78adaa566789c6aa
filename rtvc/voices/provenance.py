"""What a voice's `source` says of where it came from. It may have been read from anybody's file:
nothing in it is believed."""

import json
import math
from typing import Any

from rtvc.printable import printable

FIGURES: dict[str, tuple[float, float]] = {
    "seconds": (0, 1e6),
    "speech": (0, 1e6),
    "snr": (0, 200),
    "bandwidth": (0, 1e6),
    "clipped": (0, 1),
    "level": (-200, 100),
}
"""Numbers in the report on a reference (`rtvc.voices.report.Report`), and what they can be: eleven
days, 1 MHz, 100 dBFS."""
DEEPEST = 32
"""Mixes of mixes that are looked into; what lies deeper in a file is left out."""
LONGEST_TEXT = 4096
"""Characters of a text: a path may have as many."""
MOST_ADVICE, LONGEST_ADVICE = 20, 400
"""Lines on one reference, and characters of one."""
LONGEST_NAME = 100
"""Characters of the name of a style space, of a grade, or of weights."""


def read_source(text: str) -> dict[str, Any]:
    """A source from a file's JSON: its texts printable, its numbers finite, nothing deeper than
    DEEPEST.

    Raises:
        ValueError: it is no JSON object, or says what no voice can: a style space that is no name.
    """
    try:
        content = json.loads(text, parse_float=_finite, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise ValueError("a source that is not JSON") from error
    if not isinstance(content, dict):
        raise ValueError(f"expected an object as source, got {type(content).__name__}")
    source: dict[str, Any] = _cleaned(content, 0)
    if not is_name(source.get("space", "none")):
        raise ValueError("a style space that is no name")
    return source


def _finite(text: str) -> float:
    """A number with a point; 1e999 is none."""
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is no number")
    return number


def _refused(text: str) -> float:
    """NaN and Infinity, which are no JSON."""
    raise ValueError(f"{text} is no number")


def _cleaned(value: Any, depth: int) -> Any:
    """The same with printable texts, cut off at DEEPEST."""
    if isinstance(value, str):
        return printable(value, LONGEST_TEXT)
    if isinstance(value, list):
        return [_cleaned(part, depth + 1) for part in value] if depth < DEEPEST else []
    if isinstance(value, dict):
        return (
            {printable(key): _cleaned(part, depth + 1) for key, part in value.items()}
            if depth < DEEPEST
            else {}
        )
    return value


def is_text(value: object, longest: int) -> bool:
    """Whether this can be shown to people."""
    return isinstance(value, str) and len(value) <= longest and value.isprintable()


def is_name(value: object) -> bool:
    """Whether this can name a style space, or weights."""
    return is_text(value, LONGEST_NAME) and bool(value)


def is_figure(value: object, low: float, high: float) -> bool:
    """Whether this is a number within bounds; `True` is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def reference_reports(source: object, depth: int = 0) -> list[dict[str, Any]]:
    """Every report on a reference recording in a source, at any depth down to DEEPEST."""
    if depth > DEEPEST or not isinstance(source, dict | list):
        return []
    if isinstance(source, list):
        return [entry for part in source for entry in reference_reports(part, depth + 1)]
    own = source.get("references", [])
    reports = [entry for entry in own if is_report(entry)] if isinstance(own, list) else []
    return reports + [
        entry
        for key, part in source.items()
        if key != "references"
        for entry in reference_reports(part, depth + 1)
    ]


def is_report(entry: object) -> bool:
    """Whether this is what `Report.as_dict` writes: its types, its ranges, and texts that can be
    shown."""
    if not isinstance(entry, dict) or not all(
        is_figure(entry.get(key), *bounds) for key, bounds in FIGURES.items()
    ):
        return False
    advice = entry.get("advice")
    if (
        not isinstance(advice, list)
        or len(advice) > MOST_ADVICE
        or not all(is_text(line, LONGEST_ADVICE) for line in advice)
    ):
        return False
    return (
        is_text(entry.get("path"), LONGEST_TEXT)
        and is_text(entry.get("grade"), LONGEST_NAME)
        and entry["speech"] <= entry["seconds"]
    )


def mix_parts(source: dict[str, Any]) -> list[tuple[float, str]]:
    """Shares and names of the parts of a mix, empty if the source is of none."""
    parts = source.get("mix", [])
    if not isinstance(parts, list):
        return []
    told = [part for part in parts if isinstance(part, dict) and is_figure(part.get("share"), 0, 1)]
    return [(float(part["share"]), printable(part.get("name"))) for part in told]


def fitted_weights(source: dict[str, Any]) -> str | None:
    """The name of the weights that a voice was fitted to, None if its source says none."""
    fit = source.get("fit")
    weights = fit.get("weights") if isinstance(fit, dict) else None
    return str(weights) if is_name(weights) else None
