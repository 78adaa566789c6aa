"""Whether conversions keep what is said in languages that no transcript and no recogniser of words
is at hand for: by units of speech.

A recording and its conversion into another held-back person's voice are both told in units
(clusters of a multilingual recogniser's inner layer); repetitions are left out, and the edit
distance between the two sequences, a unit of the recording, is the unit error rate. It is a scale
for comparing models: the same words said twice by one person differ in units too, and those of
another recording, which are stated beside it, differ in nearly all.
"""

import csv
import gzip
from collections.abc import Callable, Sequence
from itertools import groupby, zip_longest
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np

from rtvc.data.cache import Array
from rtvc.data.manifest import Entry
from rtvc.errors import ConfigError
from rtvc.evaluate.judges.optional import need
from rtvc.evaluate.run import ConvertFn
from rtvc.evaluate.summary import interval, resampled

Units = Callable[[Array], Sequence[int]]
"""A recording (N,) at 24 kHz -> its units, 50 a second."""
Language = Callable[[Entry], str]
"""What is spoken in a recording; empty where nobody knows."""
SHORTEST, LONGEST = 2.0, 10.0
"""Seconds of the recordings that are converted."""
NAMED = 16
"""Digits of a clip's blob that its recording is named by."""


class Conversion(NamedTuple):
    """One recording and its conversion."""

    source: str
    speaker: str
    target: str
    language: str
    """Empty where nobody knows."""
    error: float
    """Unit error rate of the conversion."""
    chance: float
    """That of the next recording of the language, which says something else."""


class Languages(NamedTuple):
    """Means over recordings, with 95 % intervals."""

    recordings: int
    error: float
    error_ci95: tuple[float, float]
    chance: float
    conversions: list[Conversion]

    def of_each(self) -> "dict[str, tuple[int, float, float]]":
        """Recordings, error and chance of every language, in their order."""
        groups: dict[str, list[Conversion]] = {}
        for conversion in self.conversions:
            groups.setdefault(conversion.language, []).append(conversion)
        return {
            language: (
                len(group),
                fmean(conversion.error for conversion in group),
                fmean(conversion.chance for conversion in group),
            )
            for language, group in groups.items()
        }


def spoken(table: Path) -> Language:
    """The languages that a table of clips knows (tab-separated, packed or not, with the columns
    blob and language), of recordings that are named by the first digits of their blob.

    Raises:
        ConfigError: it cannot be read or lacks a column.
    """
    try:
        with gzip.open(table, "rt") if table.suffix == ".gz" else table.open() as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        languages = {row["blob"][:NAMED]: row["language"] for row in rows}
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise ConfigError(
            f"expected a table of clips with the columns blob and language, {table} is none"
            f" ({error}): name that of the corpus, such as clips.tsv.gz"
        ) from error
    return lambda entry: languages.get(entry.path.stem[:NAMED], "")


def of_languages(
    entries: Sequence[Entry], language: Language, requested: Sequence[str]
) -> list[Entry]:
    """The recordings of the languages requested, in the order of these.

    Raises:
        ConfigError: there is none of one of them.
    """
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(language(entry), []).append(entry)
    if missing := [name for name in requested if name not in groups]:
        there = ", ".join(sorted(name for name in groups if name)) or "none"
        raise ConfigError(
            f"expected recordings in {', '.join(missing)}, there are none: choose of {there}"
        )
    return [entry for name in requested for entry in groups[name]]


def error_rate(expected: Sequence[int], recognised: Sequence[int]) -> float:
    """Unit error rate: edits that lead from one sequence to the other, repetitions left out, a unit
    of the first."""
    words = [" ".join(str(unit) for unit, _ in groupby(units)) for units in (expected, recognised)]
    return float(need("jiwer").wer(*words))


def unknown(entry: Entry) -> str:
    """A `Language` of recordings of which nobody knows it."""
    return ""


def chosen(
    entries: Sequence[Entry], count: int, seed: int = 0, language: Language = unknown
) -> list[tuple[Entry, Entry]]:
    """Recordings and whose voice each is converted to: languages in turn, of as many speakers as
    possible, the targets other speakers' longest recordings; always the same.

    Raises:
        ConfigError: there are fewer than two speakers.
    """
    longest: dict[str, Entry] = {}
    for entry in sorted(entries, key=lambda entry: -entry.seconds):
        longest.setdefault(entry.speaker, entry)
    if len(longest) < 2:
        raise ConfigError(
            f"expected recordings of two speakers or more, got {len(longest)}: name a manifest of"
            " held-back speakers"
        )
    rng = np.random.default_rng(seed)
    fitting = [e for e in entries if SHORTEST <= e.seconds <= LONGEST]
    order = [fitting[k] for k in rng.permutation(len(fitting))]
    # Speaker by speaker before anybody's second recording.
    turn: dict[str, int] = {}
    ranked = []
    for entry in order:
        turn[entry.speaker] = turn.get(entry.speaker, 0) + 1
        ranked.append((turn[entry.speaker], entry))
    groups: dict[str, list[Entry]] = {language(entry): [] for entry in entries}
    for _, entry in sorted(ranked, key=lambda each: each[0]):
        groups[language(entry)].append(entry)
    in_turn = [entry for row in zip_longest(*groups.values()) for entry in row if entry is not None]
    pairs = []
    for entry in in_turn[:count]:
        others = sorted(set(longest) - {entry.speaker})
        pairs.append((entry, longest[others[int(rng.integers(len(others)))]]))
    return pairs


def languages(
    convert: ConvertFn,
    pairs: Sequence[tuple[Entry, Entry]],
    units: Units,
    read: Callable[[Path], Array],
    progress: Callable[[int, int], None] = lambda done, total: None,
    language: Language = unknown,
) -> Languages:
    """The unit error rate of conversions.

    Args:
        convert: of an evaluation.
        pairs: what `chosen` gives.
        units: of a recording.
        read: a recording (N,) at 24 kHz.
        progress: told how many are done, and of how many.
        language: of a recording.
    """
    units_of = [units(read(source.path)) for source, _ in pairs]
    spoken_in = [language(source) for source, _ in pairs]
    conversions = []
    for number, (source, target) in enumerate(pairs):
        wave, _ = convert(source.path, [target.path])
        later = [(number + step) % len(units_of) for step in range(1, len(units_of) + 1)]
        same = [k for k in later if spoken_in[k] == spoken_in[number] and k != number]
        other = units_of[(same or later)[0]]
        conversions.append(
            Conversion(
                source.path.name,
                source.speaker,
                target.speaker,
                spoken_in[number],
                error_rate(units_of[number], units(wave)),
                error_rate(units_of[number], other),
            )
        )
        progress(number + 1, len(pairs))
    errors = [each.error for each in conversions]
    edges = interval(np.asarray(errors)[resampled(len(errors))].mean(1))
    return Languages(
        len(conversions),
        fmean(errors),
        edges,
        fmean(each.chance for each in conversions),
        conversions,
    )
