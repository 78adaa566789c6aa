"""Recordings that sound clean enough to learn from, by a judge of quality.

Half of what browser microphones bring would not pass for clean speech; a decoder that learns to
restore it learns to sound like it. The judge hears each recording once: its opinions lie beside the
manifest, a line each, and a stopped run goes on.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rtvc.audio.recording import read
from rtvc.data.manifest import Entry
from rtvc.data.prepare import Refusal
from rtvc.errors import AudioError, TrainingError
from rtvc.evaluate.audio import Wave

Judge = Callable[[Wave], float]
"""A recording (N,) at 24 kHz -> what is thought of it, 1 to 5."""


class Selected(NamedTuple):
    """What was chosen, what was not and why, and how many recordings were listened to."""

    kept: list[Entry]
    refused: list[Refusal]
    heard: int


class Opinions:
    """What the judge said of each recording, in a file that grows by a line a recording."""

    def __init__(self, path: Path, judge: Judge) -> None:
        """Reads what the file holds; what a stopped run left half-written is not believed.

        Raises:
            TrainingError: it cannot be read.
        """
        self.path, self.judge, self.heard = path, judge, 0
        self.known: dict[str, float] = {}
        try:
            text = path.read_text(encoding="utf-8") if path.exists() else ""
        except (OSError, ValueError) as error:
            raise TrainingError(f"{path} cannot be read ({error}): delete it") from error
        self.gap = "" if text.endswith("\n") or not text else "\n"
        for line in text.splitlines():
            try:
                said = json.loads(line)
                self.known[str(said["path"])] = float(said["dnsmos"])
            except (ValueError, KeyError, TypeError):
                continue

    def of(self, entry: Entry) -> float:
        """What is thought of a recording, from the file or from listening.

        Raises:
            AudioError: it cannot be read.
            TrainingError: the file cannot be written.
        """
        name = str(entry.path)
        if name not in self.known:
            score = round(self.judge(read(entry.path).clamp(-1, 1).numpy()), 3)
            self.heard += 1
            line = json.dumps({"path": name, "dnsmos": score})
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(f"{self.gap}{line}\n")
            except OSError as error:
                raise TrainingError(f"{self.path} cannot be written ({error.strerror})") from error
            self.gap = ""
            self.known[name] = score
        return self.known[name]


def select(
    entries: Sequence[Entry],
    opinions: Opinions,
    lowest: float,
    per_speaker: int = 0,
    bandwidth_rate: int = 0,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Selected:
    """The recordings that the judge finds good enough.

    Args:
        entries: in the order in which they are listened to.
        opinions: of the judge.
        lowest: opinion that is accepted.
        per_speaker: most recordings of a speaker; further ones are not listened to. 0: all.
        bandwidth_rate: recordings of a lower one are not listened to, Hz.
        told: what is done and of how much.
    """
    kept: list[Entry] = []
    refused: list[Refusal] = []
    counts: Counter[str] = Counter()
    for number, entry in enumerate(entries, 1):
        reason = ""
        if entry.bandwidth_rate < bandwidth_rate:
            reason = f"its bandwidth rate is {entry.bandwidth_rate} Hz, expected {bandwidth_rate}"
        elif per_speaker and counts[entry.speaker] >= per_speaker:
            reason = f"{entry.speaker} has {per_speaker} recordings already"
        else:
            try:
                opinion = opinions.of(entry)
                if not opinion >= lowest:
                    reason = f"DNSMOS is {opinion:.2f}, expected at least {lowest:g}"
            except AudioError as error:
                reason = str(error)
        if reason:
            refused.append(Refusal(entry.path, reason))
        else:
            kept.append(entry)
            counts[entry.speaker] += 1
        told(number, len(entries))
    return Selected(kept, refused, opinions.heard)


def summary_of(selected: Selected) -> Mapping[str, float | int]:
    """What was chosen, in figures."""
    return {
        "recordings": len(selected.kept),
        "hours": round(sum(entry.seconds for entry in selected.kept) / 3600, 2),
        "speakers": len({entry.speaker for entry in selected.kept}),
        "refused": len(selected.refused),
        "heard": selected.heard,
    }
