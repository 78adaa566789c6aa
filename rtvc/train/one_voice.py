"""Fine-tuning to one voice, from its recordings to a table: gather and split, train, export,
measure. Each part goes on where it was when the whole is run again."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rtvc.converter import VoiceConverter
from rtvc.data.manifest import Entry, write_manifest
from rtvc.data.prepare import Limits, Refusal, check_all, find, write_refusals
from rtvc.errors import CheckpointError, TrainingError
from rtvc.evaluate.audio import Wave, read
from rtvc.evaluate.evaluators import Evaluators
from rtvc.evaluate.measurements import Recordings
from rtvc.evaluate.pairs import Pair
from rtvc.evaluate.run import evaluate_pairs
from rtvc.models.loading import fingerprint, listed, load_into
from rtvc.models.streaming.assets import load_file, save_file
from rtvc.train.export import commit
from rtvc.train.material.cutting import pieces
from rtvc.train.state import load_weights
from rtvc.train.streaming.stream_voice import TRAINED
from rtvc.voices.voice import Voice

LIMITS = Limits(shortest=1.0, longest=4 * 3600.0)
"""Of recordings that are accepted; long ones are cut."""
LEAST = 4
"""Recordings without which nothing can be held out."""
SHARE = 5
"""One in so many recordings is held out at most."""
REFERENCES = 20
"""Training recordings, the longest, that make the voice."""
JUDGED = 8
"""Held-out recordings of the person that conversions are compared with."""


@dataclass(frozen=True)
class Split:
    """One person's recordings.

    Attributes:
        train: what is learnt from.
        held_out: what is measured on, and nothing learns from.
        refused: what cannot be used, and why.
    """

    train: list[Entry]
    held_out: list[Entry]
    refused: list[Refusal]

    @property
    def minutes(self) -> float:
        """Of training."""
        return sum(entry.seconds for entry in self.train) / 60


def gather(source: Path, folder: Path, held_out: int, each: Callable[[], None]) -> Split:
    """Checks, cuts and splits one person's recordings, always the same way; writes `train.tsv`,
    `held_out.tsv` and what was refused into the folder.

    Args:
        source: a folder of recordings or a table, as `rtvc data prepare` takes it.
        folder: of the run.
        held_out: recordings that are held out; fewer where they would be more than a fifth.
        each: called after every recording.

    Raises:
        TrainingError: no recordings, those of several people, or too few of them.
    """
    kept, refused = check_all(find(source), LIMITS, 1, each, ".jsonl")
    if source.is_file() and len(speakers := sorted({entry.speaker for entry in kept})) > 1:
        raise TrainingError(
            f"expected recordings of one person, {source} has {len(speakers)}"
            f" ({listed(speakers)}): keep the lines of one"
        )
    person = [
        replace(part, speaker="voice")
        for entry in kept
        for part in pieces(entry, folder / "pieces")
        if part.seconds >= LIMITS.shortest
    ]
    if refused:
        write_refusals(folder / "refused.tsv", refused)
    if len(person) < LEAST:
        raise TrainingError(
            f"expected at least {LEAST} recordings, or one of a minute, of {source} got"
            f" {len(person)} and refused {len(refused)}: record more, ten minutes are good"
        )
    count = max(2, min(held_out, len(person) // SHARE))
    drawn = sorted(person, key=lambda entry: hashlib.sha256(entry.path.name.encode()).digest())
    split = Split(drawn[count:], drawn[:count], refused)
    write_manifest(folder / "train.jsonl", split.train)
    write_manifest(folder / "held_out.jsonl", split.held_out)
    return split


def make_voice(converter: VoiceConverter, split: Split, name: str) -> Voice:
    """The voice of the longest training recordings.

    Raises:
        AudioError: nobody speaks in one of them.
    """
    longest = sorted(split.train, key=lambda entry: -entry.seconds)[:REFERENCES]
    return converter.voice(*(entry.path for entry in longest), name=name)


def export(base: Path, run: Path, out: Path, facts: dict[str, str]) -> Path:
    """Writes the whole model with what a run of `stream_voice` learnt.

    Raises:
        CheckpointError: the weights do not fit, or some are too large for float16.
    """
    model, learnt = load_file(base), load_weights(run)
    for name in TRAINED:
        load_into(model.get_submodule(name), learnt[name], f"for {name}, of {run}")
        if not all(weight.half().isfinite().all() for weight in learnt[name].values()):
            raise CheckpointError(
                f"expected weights that float16 can hold, {name} of {run} has others: the run has"
                " diverged, run it again with --fresh and a lower optimizer.lr"
            )
    out.parent.mkdir(parents=True, exist_ok=True)
    return save_file(model, out, {"commit": commit(), **facts})


def spoken(entries: Sequence[Entry], known: Recordings) -> list[tuple[Path, str]]:
    """Recordings and their texts: those given, or else what the recogniser hears in them."""
    return [
        (entry.path, entry.text or known.measurements(entry.path).transcript()) for entry in entries
    ]


def pairs(sources: Sequence[tuple[Path, str]], split: Split, name: str) -> list[Pair]:
    """Conversions to the person, compared with held-out recordings other than the one that is
    said."""
    held = [entry.path for entry in split.held_out]
    return [
        Pair(path, name, tuple(other for other in held if other != path)[:JUDGED], text)
        for path, text in sources
    ]


def measure(
    converter: VoiceConverter,
    voice: Voice,
    conversions: Sequence[Pair],
    *,
    title: str,
    cache: Path,
    recordings: Path,
    evaluators: Evaluators,
    progress: Callable[[str, int, int], None],
) -> dict[str, Any]:
    """What `rtvc evaluate` measures, of conversions to a voice that is given.

    Args:
        converter: a streaming model.
        voice: of its style space.
        conversions: see `pairs`.
        title: of the result.
        cache: a folder for what was converted and measured.
        recordings: a folder for what was said of recordings.
        evaluators: who judges.
        progress: told the stage, and how many of how many are done.
    """
    import time

    def convert(source: Path, references: list[Path]) -> tuple[Wave, float]:
        wave = read(source)
        began = time.perf_counter()
        return converter.convert(wave, 24_000, voice), time.perf_counter() - began

    key = hashlib.sha256(f"{weights_name(converter)} ".encode() + voice.content()).hexdigest()[:16]
    return evaluate_pairs(
        convert,
        conversions,
        model=title,
        key=key,
        cache=cache,
        recordings=recordings,
        evaluators=evaluators,
        progress=progress,
    )


def weights_name(converter: VoiceConverter) -> str:
    """A name for every weight of a model."""
    streaming: Any = converter.model.streaming
    return fingerprint((streaming.converter,))
