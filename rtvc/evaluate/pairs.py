"""The list of conversions to judge, a tab-separated file whose audio lies beside it in `eval/`."""

import csv
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rtvc.errors import AudioError, ConfigError
from rtvc.files import kind

CORPUS_COLUMNS = ("path", "speaker", "transcript")
SEED = "more pairs"
REFERENCES = 3
"""Recordings of the target for each pair."""

COLUMNS = ("source", "target_speaker", "references", "transcript")


@dataclass(frozen=True)
class Pair:
    """One conversion: what is said, and recordings of the person who should say it."""

    source: Path
    target: str
    references: tuple[Path, ...]
    transcript: str

    @property
    def name(self) -> str:
        """Unique within a list, and fit for a file name."""
        return f"{self.source.stem}_to_{self.target}"

    @property
    def stem(self) -> str:
        """For files about the conversion: another list may hold the same one with other
        references."""
        places = "\n".join("/".join(path.parts[-2:]) for path in (self.source, *self.references))
        return f"{self.name}-{hashlib.sha256(places.encode()).hexdigest()[:8]}"


def read_pairs(path: Path, limit: int | None = None, more: int = 0) -> list[Pair]:
    """The pairs of a list in order and `more` of the same corpus behind them, the first `limit` of
    all.

    Raises:
        ConfigError: the list is missing, empty, or lacks a column.
        AudioError: a recording that it names is missing.
    """
    if kind(path) != "file":
        raise ConfigError(
            f"there is no list of pairs at {path}; give a tab-separated file with the columns"
            f" {', '.join(COLUMNS)}"
        )
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read ({error}): save it as UTF-8") from error
    missing = [column for column in COLUMNS if not rows or rows[0].get(column) is None]
    if missing:
        raise ConfigError(
            f"{path} lacks the columns {', '.join(missing)} or holds no pair; wanted a header with"
            f" {', '.join(COLUMNS)}"
        )
    audio = path.parent / "eval"
    pairs = [
        Pair(
            audio / row["source"],
            row["target_speaker"],
            tuple(audio / name for name in row["references"].split()),
            row["transcript"],
        )
        for row in rows
    ]
    if more:
        pairs += more_pairs(path.with_name("eval.tsv"), pairs, more)
    pairs = pairs[:limit]
    for pair in pairs:
        for recording in (pair.source, *pair.references):
            if kind(recording) != "file":
                raise AudioError(
                    f"{path} names {recording}, which does not exist; the recordings belong in"
                    f" {audio}"
                )
        if not pair.references:
            raise ConfigError(
                f"{path} gives no reference recording for {pair.name}; wanted at least one"
            )
    return pairs


def more_pairs(corpus: Path, listed: Sequence[Pair], count: int) -> list[Pair]:
    """Pairs besides those listed, none twice, the same for every list of the same corpus and pairs.

    They come in rounds in which every speaker is once a source and once a target, as long as there
    are new pairs of them. What was the source of fewest pairs so far comes first; three recordings
    of the target are its references.

    Args:
        corpus: tab-separated, with the columns path (in `eval/` beside it), speaker and transcript.
        listed: the pairs there are already, which count as made.
        count: how many more.

    Raises:
        ConfigError: the corpus is missing or lacks a column, or has not so many pairs.
    """
    if not corpus.is_file():
        raise ConfigError(
            f"expected a table of the recordings beside the list of pairs, there is no {corpus}:"
            " leave --more out"
        )
    rows = rows_of(corpus, CORPUS_COLUMNS)
    audio = corpus.parent / "eval"
    transcripts = {audio / row["path"]: row["transcript"] for row in rows}
    recordings: dict[str, list[str]] = {}
    for row in rows:
        recordings.setdefault(row["speaker"], []).append(row["path"])
    speakers = shuffled(list(recordings), "speakers")
    steps = shuffled([str(step) for step in range(1, len(speakers))], "steps")
    used = Counter(pair.source for pair in listed)
    taken = {(pair.source, pair.target) for pair in listed}
    drawn: list[Pair] = []
    for turn in range(len(speakers) * len(steps) * max(map(len, recordings.values()))):
        if len(drawn) == count:
            break
        round_, place = divmod(turn, len(speakers))
        speaker, target = (
            speakers[place],
            speakers[(place + int(steps[round_ % len(steps)])) % len(speakers)],
        )
        sources = (audio / name for name in shuffled(recordings[speaker], f"sources of {speaker}"))
        free = [source for source in sources if (source, target) not in taken]
        if not free:
            continue
        source = min(free, key=lambda source: used[source])
        order = shuffled(recordings[target], f"references of {source.stem} to {target}")
        references = order[:REFERENCES]
        drawn.append(
            Pair(source, target, tuple(audio / name for name in references), transcripts[source])
        )
        used[source] += 1
        taken.add((source, target))
    if len(drawn) < count:
        raise ConfigError(
            f"expected {count} more pairs, {corpus} has {len(drawn)} besides those listed: ask for"
            " fewer"
        )
    return drawn


def shuffled(names: Sequence[str], what: str) -> list[str]:
    """The names in an order that only they and `what` decide."""
    return sorted(
        names, key=lambda name: hashlib.sha256(f"{SEED}: {what}: {name}".encode()).digest()
    )


def rows_of(table: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a tab-separated table of recordings.

    Raises:
        ConfigError: it lacks one of these columns, or has no row.
    """
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    if missing := [column for column in columns if not rows or rows[0].get(column) is None]:
        raise ConfigError(
            f"{table} lacks the columns {', '.join(missing)} or names no recording; wanted"
            f" {', '.join(columns)}"
        )
    return rows
