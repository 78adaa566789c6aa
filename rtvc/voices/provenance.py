"""What a voice's `source` says of where it came from. It may have been read from anybody's file: nothing in it is believed."""

from typing import Any

FIGURES = ("seconds", "speech", "snr", "bandwidth", "clipped", "level")
"""Numbers in the report on a reference (`rtvc.voices.report.Report`)."""
DEEPEST = 32
"""Mixes of mixes that are looked into."""


def reference_reports(source: object, depth: int = 0) -> list[dict[str, Any]]:
    """Every report on a reference recording in a source, at any depth down to DEEPEST."""
    if depth > DEEPEST or not isinstance(source, dict | list):
        return []
    if isinstance(source, list):
        return [entry for part in source for entry in reference_reports(part, depth + 1)]
    own = source.get("references", [])
    found = [entry for entry in own if is_report(entry)] if isinstance(own, list) else []
    return found + [entry for key, part in source.items() if key != "references" for entry in reference_reports(part, depth + 1)]


def is_report(entry: object) -> bool:
    """Whether this is what `Report.as_dict` writes."""
    if not isinstance(entry, dict) or not isinstance(entry.get("advice"), list):
        return False
    numbers = all(isinstance(entry.get(key), int | float) for key in FIGURES)
    return numbers and isinstance(entry.get("path"), str) and isinstance(entry.get("grade"), str)


def mix_parts(source: dict[str, Any]) -> list[tuple[float, str]]:
    """Shares and names of the parts of a mix, empty if the source is of none."""
    parts = source.get("mix", [])
    if not isinstance(parts, list):
        return []
    told = [part for part in parts if isinstance(part, dict) and isinstance(part.get("share"), int | float)]
    return [(float(part["share"]), str(part.get("name"))) for part in told]
