"""Manifests: which recordings there are to train on, one line each.

`.tsv` with a header, `.jsonl`, or a file list of VITS (`path|text` or `path|speaker|text`, no
header). Columns: path (relative to the manifest or absolute), speaker, seconds, bandwidth_rate
(twice the highest frequency present, in Hz), text, phonemes (IPA); all but the path may be missing.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rtvc.audio.mel import SAMPLE_RATE
from rtvc.errors import OutputError, TrainingError
from rtvc.files import check_target, is_stream, kind, parsed, write

COLUMNS = ("path", "speaker", "seconds", "bandwidth_rate", "text", "phonemes")
ALIASES = {
    "transcript": "text",
    "bandwidth": "bandwidth_rate",
    "duration": "seconds",
    "ipa": "phonemes",
}
SUFFIXES = (".tsv", ".jsonl")
"""Of what is written."""
HIGHEST_RATE = 1_000_000
"""Hz: no bandwidth rate is above this."""
LONGEST_LINE = 1 << 20
"""Characters of a line: more is no line of a manifest."""


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


def read_manifest(path: Path, refuse: Callable[[str, str], None] | None = None) -> list[Entry]:
    """The recordings that a manifest names; files are not opened.

    Args:
        path: of the manifest; a UTF-8 file with or without a byte order mark.
        refuse: told `MANIFEST, line N` and the reason for every line that cannot be used, which is
            then left out; by default the first such line is an error.

    Raises:
        TrainingError: it cannot be read, has no path column, or a line cannot be used.
    """
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines(keepends=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        advice = "`rtvc data prepare` writes one"
        raise TrainingError(f"the manifest {path} cannot be read ({reason}): {advice}") from error
    entries = []
    for number, row in _rows(path, lines):
        where = f"{path}, line {number}"
        try:
            if isinstance(row, str):
                raise ValueError(row)
            entries.append(_entry(path, row))
        except ValueError as error:
            if refuse is None:
                raise TrainingError(f"{where}: {error}") from error
            refuse(where, str(error))
    if not entries and (refuse is None or not lines):
        raise TrainingError(f"the manifest {path} names no recordings")
    return entries


def _rows(path: Path, lines: list[bytes]) -> Iterator[tuple[int, Mapping[str, str] | str]]:
    """Line numbers, and the values of the line by column, or what is wrong with it."""
    columns: list[str] | None = None
    piped = False
    for number, data in enumerate(lines, 1):
        try:
            line = data.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            yield number, f"byte {data[error.start]:#04x} is not UTF-8: save the manifest as UTF-8"
            continue
        if len(line) > LONGEST_LINE:
            yield number, f"expected at most {LONGEST_LINE} characters, got {len(line)}"
        elif not line.strip():
            continue
        elif path.suffix == ".jsonl":
            yield number, _object(line)
        elif piped or (columns is None and "|" in line and "\t" not in line):
            if columns is None:
                columns = ["path", "text"] if line.count("|") == 1 else ["path", "speaker", "text"]
            piped = True
            yield number, _piped(line, columns)
        elif columns is None:
            columns = line.split("\t")
            if "path" not in columns:
                got = ", ".join(columns[: len(COLUMNS)])[:200]
                raise TrainingError(
                    f"{path}, line {number}: expected the columns {', '.join(COLUMNS)} or some of"
                    f" them, got {got!r} without a path"
                )
        else:
            yield number, dict(zip(columns, line.split("\t"), strict=False))


def _piped(line: str, columns: list[str]) -> Mapping[str, str] | str:
    values = line.split("|", len(columns) - 1)
    if len(values) < len(columns):
        return f"expected {'|'.join(columns)}, got {len(values)} fields"
    return dict(zip(columns, values, strict=True))


def _object(line: str) -> Mapping[str, str] | str:
    try:
        content = parsed(line)
    except ValueError as error:
        return f"it cannot be read as JSON ({error})"
    if not isinstance(content, dict):
        return f"expected a JSON object, got a {type(content).__name__}"
    if odd := [key for key, value in content.items() if isinstance(value, dict | list)]:
        return f"expected a text or number as {odd[0]!r}, got a list or an object"
    return {key: "" if value is None else str(value) for key, value in content.items()}


def _entry(manifest: Path, row: Mapping[str, str]) -> Entry:
    """One recording of a line's values.

    Raises:
        ValueError: they cannot be used.
    """
    named = {ALIASES.get(key, key): value for key, value in row.items()}
    if not named.get("path"):
        raise ValueError(f"expected a path among {', '.join(COLUMNS)}, got {', '.join(row)}")
    seconds = figure(named, "seconds", 0.0, math.inf)
    rate = figure(named, "bandwidth_rate", SAMPLE_RATE, HIGHEST_RATE)
    place = located(manifest, named["path"])
    speaker = named.get("speaker") or place.parent.name
    text, phonemes = named.get("text") or "", named.get("phonemes") or ""
    return Entry(place, speaker, seconds, int(rate), text, phonemes)


def figure(row: Mapping[str, str], column: str, missing: float, most: float) -> float:
    """A figure of a line, `missing` where there is none.

    Raises:
        ValueError: it is no number, not finite, below 0 or above `most`.
    """
    try:
        value = float(row.get(column) or missing)
    except ValueError as error:
        raise ValueError(f"expected a number in {column}: {error}") from error
    if not 0 <= value <= most or not math.isfinite(value):
        raise ValueError(f"expected {column} from 0 to {most:g}, got {value:g}")
    return value


def located(manifest: Path, name: str) -> Path:
    """Where a manifest's path leads: absolute, beside the manifest, or in the folder that bears its
    name (train.tsv: train/).

    Raises:
        ValueError: no file can have such a name.
    """
    folder = manifest.resolve().parent
    beside, named = folder / name, folder / manifest.stem / name
    try:
        if "\0" in name:
            raise ValueError("it holds a zero byte")
        os.fsencode(name)  # not every text can be a name
        return named if not beside.exists() and named.exists() else beside
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"no file can be called {shown(name[:60])!r} ({reason})") from error


def check_manifest(path: Path, *, sources: Iterable[Path] = (), force: bool | None = None) -> Path:
    """The path, if a manifest can be written there; to be asked before long work.

    Raises:
        TrainingError: a suffix other than .tsv and .jsonl, no regular file, or a place that cannot
            be written.
    """
    if path.suffix not in SUFFIXES:
        got = repr(path.suffix) if path.suffix else "no suffix"
        raise TrainingError(f"{path}: expected a name ending in .tsv or .jsonl, got {got}")
    if is_stream(path):
        got = kind(path) or "pipe"
        raise TrainingError(f"{path}: expected a file, beside which others lie, got a {got}")
    try:
        return check_target(path, sources=sources, force=force)
    except OutputError as error:
        raise TrainingError(f"the manifest {error}") from error


def unwritable(entry: Entry, suffix: str) -> str:
    """Why a recording's path or speaker cannot stand in a manifest of this suffix; empty if it
    can."""
    for what, text in (("path", str(entry.path)), ("speaker", entry.speaker)):
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            return f"its {what} is not UTF-8: rename it"
        if suffix == ".tsv" and any(letter in text for letter in "\t\r\n"):
            return f"its {what} holds a tab or a line break: rename it, or write a .jsonl"
    return ""


def write_manifest(path: Path, entries: Iterable[Entry]) -> None:
    """Writes a manifest at once; paths below its folder become relative, so that the tree can be
    moved.

    Raises:
        TrainingError: as `check_manifest`, or an entry cannot be written (`unwritable`).
    """
    check_manifest(path)
    folder, lines = path.resolve().parent, []
    if path.suffix == ".tsv":
        lines.append("\t".join(COLUMNS))
    for entry in entries:
        if reason := unwritable(entry, path.suffix):
            raise TrainingError(f"{shown(str(entry.path))} cannot be in {path}: {reason}")
        inside = entry.path.is_relative_to(folder)
        place = entry.path.relative_to(folder) if inside else entry.path
        values = (
            str(place),
            entry.speaker,
            round(entry.seconds, 3),
            entry.bandwidth_rate,
            flat(entry.text),
            flat(entry.phonemes),
        )
        row = dict(zip(COLUMNS, values, strict=True))
        plain = path.suffix == ".tsv"
        tabbed = "\t".join(map(str, values))
        lines.append(tabbed if plain else json.dumps(row, ensure_ascii=False))
    try:
        write(path, "".join(f"{line}\n" for line in lines))
    except OutputError as error:
        raise TrainingError(f"the manifest {error}") from error


def flat(text: str) -> str:
    """The text on one line, without tabs."""
    return " ".join(text.split())


def shown(text: str) -> str:
    """The text as people can read it: what does not print is written as in Python, `\\t`,
    `\\x1b`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def remark(path: Path, reason: str) -> str:
    """A line of a table of what was refused: path, tab, reason."""
    return f"{shown(str(path))}\t{shown(flat(reason))}"
