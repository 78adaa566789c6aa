"""The list of conversions to judge, a tab-separated file whose audio lies beside it in `eval/`."""

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

from rtvc.errors import AudioError, ConfigError
from rtvc.files import kind

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
        from rtvc.evaluate.more import more_pairs

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
