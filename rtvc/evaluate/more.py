"""More pairs of the corpus that a list was made of: every draw is a hash, so that any machine makes
the same ones."""

import csv
import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rtvc.errors import ConfigError
from rtvc.evaluate.pairs import Pair

COLUMNS = ("path", "speaker", "transcript")
SEED = "more pairs"
REFERENCES = 3
"""Recordings of the target for each pair."""


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
            f"there is no {corpus}, a table of the recordings beside the list of pairs was wanted:"
            " leave --more out"
        )
    with corpus.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    if missing := [column for column in COLUMNS if not rows or rows[0].get(column) is None]:
        raise ConfigError(
            f"{corpus} lacks the columns {', '.join(missing)} or names no recording; wanted"
            f" {', '.join(COLUMNS)}"
        )
    audio = corpus.parent / "eval"
    transcripts = {audio / row["path"]: row["transcript"] for row in rows}
    said: dict[str, list[str]] = {}
    for row in rows:
        said.setdefault(row["speaker"], []).append(row["path"])
    speakers = shuffled(list(said), "speakers")
    steps = shuffled([str(step) for step in range(1, len(speakers))], "steps")
    used = Counter(pair.source for pair in listed)
    taken = {(pair.source, pair.target) for pair in listed}
    made: list[Pair] = []
    for turn in range(len(speakers) * len(steps) * max(map(len, said.values()))):
        if len(made) == count:
            break
        round_, place = divmod(turn, len(speakers))
        speaker, target = (
            speakers[place],
            speakers[(place + int(steps[round_ % len(steps)])) % len(speakers)],
        )
        sources = (audio / name for name in shuffled(said[speaker], f"sources of {speaker}"))
        free = [source for source in sources if (source, target) not in taken]
        if not free:
            continue
        source = min(free, key=lambda source: used[source])
        references = shuffled(said[target], f"references of {source.stem} to {target}")[:REFERENCES]
        made.append(
            Pair(source, target, tuple(audio / name for name in references), transcripts[source])
        )
        used[source] += 1
        taken.add((source, target))
    if len(made) < count:
        raise ConfigError(
            f"{count} more pairs were wanted, {corpus} has {len(made)} besides those listed: ask"
            " for fewer"
        )
    return made


def shuffled(names: Sequence[str], what: str) -> list[str]:
    """The names in an order that only they and `what` decide."""
    return sorted(
        names, key=lambda name: hashlib.sha256(f"{SEED}: {what}: {name}".encode()).digest()
    )
