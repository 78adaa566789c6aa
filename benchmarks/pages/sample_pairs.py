"""The pairs of the page of samples: who speaks, and in whose voice; of the same corpus always the
same.

English speakers are ranked by the median of their F0, and a role names its place among them: 0 is
the deepest voice, 1 the highest. Nobody of them is a child or telephones, so a child-like voice is
the highest one played faster, which moves pitch and formants together, and a telephone is a
recording sent through what a telephone line does to it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rtvc.audio.resample import resample
from rtvc.errors import ConfigError
from rtvc.evaluate.audio import RATE, Wave, read
from rtvc.evaluate.judges.optional import need
from rtvc.evaluate.judges.pitch import f0
from rtvc.evaluate.pairs import rows_of
from rtvc.files import kind

SOURCE_SECONDS, REFERENCE_SECONDS = 5.0, 7.0
"""Of a speaker's recordings the one whose length is nearest to this is taken."""
LISTENED = 3
"""Recordings of a speaker, the first of the table, whose F0 ranks the voice."""
FASTER = 1.25
"""How much faster a child-like voice is played."""
TELEPHONE_RATE, TELEPHONE_BAND = 8_000, (300.0, 3_400.0)
MU = 255
"""Of the companding of G.711, mu-law: 8 bits a sample."""
FREE = ("CC0", "CC BY 4.0", "Apache-2.0")
"""Beginnings of the licences under which a recording may be given on."""
ENGLISH_LICENCE, ENGLISH_ORIGIN = "CC BY 4.0", "LibriSpeech test-clean"
"""Of the evaluation corpus, whose table does not say."""


class Recording(NamedTuple):
    """One recording of a corpus."""

    path: Path
    speaker: str
    seconds: float
    licence: str
    origin: str
    """The corpus, or the repository that it came from."""


class Clip(NamedTuple):
    """A recording as it is heard on the page."""

    recording: Recording
    change: str = ""
    """One of `CHANGES`; empty: as recorded."""

    def wave(self) -> Wave:
        """(N,) at 24 kHz."""
        wave = read(self.recording.path)
        return CHANGES[self.change][1](wave) if self.change else wave


class SamplePair(NamedTuple):
    """What is said, and the recording of who should say it."""

    title: str
    source: Clip
    reference: Clip


class Role(NamedTuple):
    """What a pair shows."""

    title: str
    source: float | str
    """Place among the English voices, or the name of a speaker."""
    reference: float
    source_change: str = ""
    reference_change: str = ""


ROLES = (
    Role("English, a low voice to a high one", 0.2, 0.8),
    Role("English, a high voice to a low one", 0.7, 0.3),
    Role("English, a low voice to another low one", 0.4, 0.1),
    Role("A child-like high voice speaks", 1.0, 0.6, source_change="faster"),
    Role("To a child-like high voice", 0.5, 0.95, reference_change="faster"),
    Role("To a deep voice", 0.9, 0.0),
    Role("A telephone recording", 0.25, 0.85, source_change="telephone"),
    Role("German", "kerstin", 0.35),
    Role("Dutch", "nathalie", 0.75),
    Role("Mandarin", "aishell3_ssb0139", 0.15),
)


def faster(wave: Wave) -> Wave:
    """(N,) -> (N / FASTER,): pitch, formants and tempo of a smaller person."""
    return resample(wave, round(RATE * FASTER), RATE)


def telephone(wave: Wave) -> Wave:
    """(N,) at 24 kHz -> the same length, after 300 to 3,400 Hz, 8 kHz and 8 bits of mu-law."""
    signal = need("scipy.signal")
    band = signal.butter(4, TELEPHONE_BAND, "bandpass", fs=TELEPHONE_RATE, output="sos")
    x = signal.sosfilt(band, resample(wave, RATE, TELEPHONE_RATE)).clip(-1, 1)
    levels = np.round(np.sign(x) * np.log1p(MU * np.abs(x)) / np.log1p(MU) * 127) / 127
    sent = np.sign(levels) * np.expm1(np.abs(levels) * np.log1p(MU)) / MU
    return resample(sent.astype(np.float32), TELEPHONE_RATE, RATE)[: len(wave)]


CHANGES: dict[str, tuple[str, Callable[[Wave], Wave]]] = {
    "faster": (f"played {FASTER:g} times as fast", faster),
    "telephone": ("300 to 3,400 Hz, 8 kHz, 8 bits of mu-law", telephone),
}
"""What is done to a recording, in words and in deed."""


def recordings(table: Path, folder: Path, licence: str = "", origin: str = "") -> list[Recording]:
    """The recordings of a tab-separated table with the columns path (in `folder`), speaker and
    seconds; and licence and source, unless they are given.

    Raises:
        ConfigError: the table is missing or lacks a column.
    """
    columns = ["path", "speaker", "seconds", *([] if licence else ["licence", "source"])]
    if kind(table) != "file":
        raise ConfigError(
            f"expected a table of recordings at {table}, there is none: name the corpus' folder"
        )
    return [
        Recording(
            folder / row["path"],
            row["speaker"],
            float(row["seconds"]),
            licence or row["licence"],
            origin or row["source"],
        )
        for row in rows_of(table, columns)
    ]


def corpora(corpus: Path, extra: Path | None) -> tuple[list[Recording], list[Recording]]:
    """The English recordings that no training hears (`eval.tsv`), and all others (`train.tsv` of
    the corpus, and of the extra corpus' folder where there is one)."""
    english = recordings(corpus / "eval.tsv", corpus / "eval", ENGLISH_LICENCE, ENGLISH_ORIGIN)
    others = recordings(corpus / "train.tsv", corpus / "train")
    if extra is not None:
        others += recordings(extra / "train.tsv", extra)
    return english, others


def by_speaker(all_of_them: Sequence[Recording]) -> dict[str, list[Recording]]:
    """Each speaker's recordings, in the order of the table."""
    groups: dict[str, list[Recording]] = {}
    for recording in all_of_them:
        groups.setdefault(recording.speaker, []).append(recording)
    return groups


def median_f0(waves: Sequence[Wave]) -> float:
    """Of some recordings (N,) of a person at 24 kHz, in Hz; 0 where nobody speaks."""
    track = np.concatenate([f0(wave) for wave in waves])
    return float(np.median(track[track > 0])) if (track > 0).any() else 0.0


def pitch_of(recordings: Sequence[Recording]) -> float:
    """The median F0 of some recordings of a person, in Hz."""
    return median_f0([read(recording.path) for recording in recordings])


def nearest(recordings: Sequence[Recording], seconds: float) -> Recording:
    """The recording whose length is nearest to so many seconds."""
    return min(recordings, key=lambda recording: abs(recording.seconds - seconds))


def chosen(
    english: Sequence[Recording],
    others: Sequence[Recording],
    pitch: Callable[[Sequence[Recording]], float] = pitch_of,
) -> list[SamplePair]:
    """A pair for each of `ROLES`.

    Args:
        english: of two speakers or more, whom no training heard.
        others: among which the speakers of other languages are.
        pitch: of the first recordings of a speaker, by which voices are ranked.

    Raises:
        ConfigError: a speaker is missing, or a recording's licence does not let it be given on.
    """
    groups, foreign = by_speaker(english), by_speaker(others)
    ranked = sorted(groups, key=lambda speaker: (pitch(groups[speaker][:LISTENED]), speaker))
    if len(ranked) < 2:
        raise ConfigError(f"expected English recordings of two speakers, got {len(ranked)}")

    def said_by(place: float | str) -> list[Recording]:
        if isinstance(place, float):
            return groups[ranked[round(place * (len(ranked) - 1))]]
        if place not in foreign:
            raise ConfigError(
                f"expected recordings of {place}, there are none: name the folder that the extra"
                " corpus was built in with --extra"
            )
        return foreign[place]

    pairs = [
        SamplePair(
            role.title,
            Clip(nearest(said_by(role.source), SOURCE_SECONDS), role.source_change),
            Clip(nearest(said_by(role.reference), REFERENCE_SECONDS), role.reference_change),
        )
        for role in ROLES
    ]
    for recording in (clip.recording for pair in pairs for clip in pair[1:]):
        if not recording.licence.startswith(FREE):
            raise ConfigError(
                f"expected a recording under {', '.join(FREE)}, {recording.path.name} of"
                f" {recording.speaker} is under {recording.licence!r}: leave that speaker out"
            )
    return pairs
