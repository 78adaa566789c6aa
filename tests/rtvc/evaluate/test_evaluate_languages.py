"""Unit error rates: of what is said in languages without transcripts."""

import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import soundfile
import torch
from standins import speech

from rtvc.cli import main
from rtvc.data.manifest import Entry
from rtvc.engine.cli.studies import show_languages
from rtvc.errors import ConfigError
from rtvc.evaluate.studies.languages import (
    chosen,
    error_rate,
    languages,
    of_languages,
    spoken,
    unknown,
)


def test_the_error_rate_counts_edits_without_repetitions() -> None:
    assert error_rate([1, 1, 2, 3, 3, 3, 4], [1, 2, 2, 2, 3, 4, 4]) == 0
    assert error_rate([1, 2, 3, 4], [1, 9, 3]) == 0.5
    assert error_rate([12, 3], [1, 23]) == 1.0


def entries() -> list[Entry]:
    return [
        Entry(Path(f"{speaker}{number}.flac"), speaker, 1.0 + number, 24_000, "", "")
        for speaker in "abcd"
        for number in range(4)
    ]


def test_every_speaker_speaks_before_anybody_speaks_twice() -> None:
    pairs = chosen(entries(), 6)
    assert pairs == chosen(entries(), 6) and len(pairs) == 6
    assert {source.speaker for source, _ in pairs[:4]} == set("abcd")
    for source, target in pairs:
        assert source.speaker != target.speaker and source.seconds >= 2
        assert target.seconds == 4  # their longest
    with pytest.raises(ConfigError, match="two speakers or more, got 1"):
        chosen(entries()[:4], 3)


def test_a_perfect_conversion_has_no_error_and_one_that_says_another_thing_has_chance() -> None:
    pairs = chosen(entries(), 4)
    seed = {source.path: number for number, (source, _) in enumerate(pairs)}

    def read(path: Path) -> np.ndarray:
        return np.full(50, seed[path], np.float32)

    def units(wave: np.ndarray) -> list[int]:
        return [int(wave[0]) * 100 + k for k in range(10)]

    right = languages(lambda path, _: (read(path), 0.0), pairs, units, read)
    assert right.error == 0 and right.chance == 1.0 and right.error_ci95 == (0, 0)

    def other(path: Path, _: list[Path]) -> tuple[np.ndarray, float]:
        return np.full(50, seed[path] + 7, np.float32), 0.0

    wrong = languages(other, pairs, units, read)
    assert wrong.error == 1.0 and wrong.recordings == 4
    assert [each.source for each in wrong.conversions] == [source.path.name for source, _ in pairs]


BLOBS = {"fr": "a" * 40, "fr2": "b" * 40, "nl": "c" * 40, "nl2": "d" * 40, "en": "e" * 40}


def clip(name: str, speaker: str, seconds: float = 3.0) -> Entry:
    """A recording that is named by its blob."""
    return Entry(Path(f"{BLOBS[name][:16]}.flac"), speaker, seconds, 24_000, "", "")


@pytest.fixture(params=["clips.tsv", "clips.tsv.gz"])
def table(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A table of clips, packed or not."""
    rows = "".join(f"here\t{blob}\t{name[:2]}\n" for name, blob in BLOBS.items())
    text = f"repository\tblob\tlanguage\n{rows}"
    path = tmp_path / request.param
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_languages_come_in_turn_and_only_those_wanted(table: Path) -> None:
    entries = [clip(name, f"speaker {name}") for name in ("fr", "fr2", "nl", "nl2", "en")]
    language = spoken(table)
    assert [language(entry) for entry in entries] == ["fr", "fr", "nl", "nl", "en"]
    assert language(Entry(Path("other.flac"), "s")) == ""
    wanted = of_languages(entries, language, ["nl", "fr"])
    pairs = chosen(wanted, 3, language=language)
    assert [language(source) for source, _ in pairs] == ["nl", "fr", "nl"]
    assert {source.speaker for source, _ in pairs} <= {entry.speaker for entry in entries[:4]}
    assert chosen(entries, 5) == chosen(entries, 5, language=unknown)
    with pytest.raises(ConfigError, match="in de, there are none: choose of en, fr, nl"):
        of_languages(entries, language, ["de", "fr"])


def test_each_language_is_told_and_its_ceiling_is_of_the_same(table: Path) -> None:
    """Another recording of the same language says half of the units that this one does; those of
    another language say none."""
    entries = [clip(name, f"speaker {name}") for name in ("fr", "fr2", "nl", "nl2")]
    language = spoken(table)
    pairs = chosen(entries, 4, language=language)
    own = {"a": 1, "b": 2, "c": 30, "d": 40}

    def read(path: Path) -> np.ndarray:
        return np.full(10, own[path.name[0]], np.float32)

    def units(wave: np.ndarray) -> list[int]:
        number = int(wave[0])
        shared = [700 + k for k in range(5)] if number < 10 else [800 + k for k in range(5)]
        return shared + [number * 10 + k for k in range(5)]

    result = languages(
        lambda path, _: (np.full(10, own[path.name[0]] + 5, np.float32), 0.0),
        pairs,
        units,
        read,
        language=language,
    )
    assert result.chance == 0.5 and result.error == 0.5
    assert result.of_each() == {"fr": (2, 0.5, 0.5), "nl": (2, 0.5, 0.5)}
    assert [each.language for each in result.conversions] == ["fr", "nl", "fr", "nl"]


def test_a_table_without_languages_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clips.tsv"
    path.write_text("path\tspeaker\nx\ty\n")
    with pytest.raises(ConfigError, match="columns blob and language"):
        spoken(path)
    packed = tmp_path / "clips.tsv.gz"
    packed.write_bytes(b"no gzip")
    with pytest.raises(ConfigError, match="columns blob and language"):
        spoken(packed)


def test_the_command_tells_every_language(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["path\tspeaker\tseconds"]
    for name in ("fr", "fr2", "nl", "nl2", "en"):
        entry = clip(name, f"speaker {name}")
        soundfile.write(tmp_path / entry.path, speech(2.0, 24_000, 100.0 + 9 * len(rows)), 24_000)
        rows.append(f"{entry.path}\t{entry.speaker}\t2.0")
    manifest = tmp_path / "held_out.tsv"
    manifest.write_text("\n".join(rows) + "\n")
    # In place of a recogniser: the loudness of every 20 ms.
    heard = SimpleNamespace(
        units=lambda wave: (
            torch.tensor(np.abs(wave[: 480 * 50]).reshape(1, 50, 480).mean(-1) * 99).round().long()
        )
    )
    monkeypatch.setattr("rtvc.train.material.units.Codebook.load", lambda path: heard)
    monkeypatch.setattr("rtvc.teacher.whisper.Listener", lambda layers: lambda wave: wave)

    class Same:
        """A perfect conversion."""

        name = "perfect"

        def __call__(self, source: Path, references: list[Path]) -> tuple[Any, float]:
            return soundfile.read(source, dtype="float32")[0], 0.0

    out = tmp_path / "out.json"
    show_languages(cast("Any", Same()), manifest, tmp_path / "book", 4, out, table, ["nl", "fr"])
    said = capsys.readouterr().out
    assert "nl: 0.000 of 2 recordings" in said and "fr: 0.000 of 2 recordings" in said
    assert "perfect: unit error rate 0.000" in said and "en:" not in said
    result = json.loads(out.read_text())
    assert [row["language"] for row in result["said"]] == ["nl", "fr", "nl", "fr"]
    assert result["chance"] > 0


def test_languages_without_units_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--clips", "clips.tsv"]) == 2
    assert "give --units and --clips" in " ".join(capsys.readouterr().err.split())
    assert main(["evaluate", "--units", "book", "--language", "fr"]) == 2
