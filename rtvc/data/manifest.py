"""Manifests: which recordings there are to train on, one line each.

`.tsv` with a header, or `.jsonl`. Columns: path (relative to the manifest or absolute), speaker, seconds, bandwidth_rate
(twice the highest frequency present, in Hz), text, phonemes (IPA); all but the path may be missing.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rtvc.audio.mel import SAMPLE_RATE
from rtvc.errors import TrainingError
from rtvc.files import replacing

COLUMNS = ("path", "speaker", "seconds", "bandwidth_rate", "text", "phonemes")
ALIASES = {"transcript": "text", "bandwidth": "bandwidth_rate", "duration": "seconds", "ipa": "phonemes"}


@dataclass(frozen=True)
class Entry:
    """One recording."""

    path: Path
    """Absolute."""
    speaker: str
    seconds: float = 0.0
    """0 where unknown."""
    bandwidth_rate: int = SAMPLE_RATE
    text: str = ""
    phonemes: str = ""


def read_manifest(path: Path) -> list[Entry]:
    """The recordings that a manifest names; files are not opened.

    Raises:
        TrainingError: it cannot be read, has no path column, or a line has a value that is no number.
    """
    try:
        rows = list(_rows(path))
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise TrainingError(f"the manifest {path} cannot be read ({error}): `rtvc data prepare` writes one") from error
    entries = []
    for number, row in rows:
        named = {ALIASES.get(key, key): value for key, value in row.items()}
        if not named.get("path"):
            raise TrainingError(f"{path}, line {number}: no path; the columns {', '.join(COLUMNS)} were wanted, {', '.join(row)} came")
        try:
            seconds, rate = float(named.get("seconds") or 0), int(float(named.get("bandwidth_rate") or SAMPLE_RATE))
        except ValueError as error:
            raise TrainingError(f"{path}, line {number}: {error}; numbers were wanted in seconds and bandwidth_rate") from error
        place = located(path, named["path"])
        entries.append(
            Entry(place, named.get("speaker") or place.parent.name, seconds, rate, named.get("text") or "", named.get("phonemes") or "")
        )
    if not entries:
        raise TrainingError(f"the manifest {path} names no recordings")
    return entries


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    with open(path, encoding="utf-8", newline="") as file:
        if path.suffix == ".jsonl":
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, {key: "" if value is None else str(value) for key, value in json.loads(line).items()}
        else:
            for number, row in enumerate(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE), 2):
                yield number, {key: value or "" for key, value in row.items() if key}


def located(manifest: Path, name: str) -> Path:
    """Where a manifest's path leads: absolute, beside the manifest, or in the folder that bears its name (train.tsv: train/)."""
    folder = manifest.resolve().parent
    beside = folder / name
    return beside if beside.exists() or not (named := folder / manifest.stem / name).exists() else named


def write_manifest(path: Path, entries: Iterable[Entry]) -> None:
    """Writes a manifest at once; paths below its folder become relative, so that the tree can be moved.

    Raises:
        TrainingError: a suffix other than .tsv and .jsonl, or a folder that is not there.
    """
    if path.suffix not in (".tsv", ".jsonl"):
        raise TrainingError(f"{path} ends in {path.suffix or 'no suffix'!r}, .tsv or .jsonl was wanted")
    folder = path.resolve().parent
    try:
        with replacing(path) as fresh, open(fresh, "w", encoding="utf-8", newline="") as file:
            if path.suffix == ".tsv":
                file.write("\t".join(COLUMNS) + "\n")
            for entry in entries:
                place = entry.path.relative_to(folder) if entry.path.is_relative_to(folder) else entry.path
                values = (str(place), entry.speaker, round(entry.seconds, 3), entry.bandwidth_rate, flat(entry.text), flat(entry.phonemes))
                row = dict(zip(COLUMNS, values, strict=True))
                file.write(json.dumps(row, ensure_ascii=False) if path.suffix == ".jsonl" else "\t".join(map(str, row.values())))
                file.write("\n")
    except OSError as error:
        raise TrainingError(f"the manifest {path} cannot be written ({error})") from error


def flat(text: str) -> str:
    """The text on one line, without tabs."""
    return " ".join(text.split())
