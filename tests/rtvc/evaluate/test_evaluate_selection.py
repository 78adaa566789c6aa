"""Recordings chosen by a judge of quality: who is listened to, who is left out and why, and what a
stopped run keeps."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtvc.cli.label import print_summary
from rtvc.data.manifest import Entry, read_manifest, write_manifest
from rtvc.errors import TrainingError
from rtvc.evaluate.audio import Wave
from rtvc.evaluate.selection import Opinions, select, summary_of

RATE = 24_000


def loudness(wave: Wave) -> float:
    """A judge that likes what is loud: 5 at full scale."""
    return 5 * float(np.abs(wave).max())


@pytest.fixture
def entries(tmp_path: Path) -> list[Entry]:
    """Six recordings: of anna loud, quiet, loud; of ben loud, one that is no sound, and narrow."""
    made = []
    for number, (speaker, peak, rate) in enumerate(
        [
            ("anna", 0.8, 24_000),
            ("anna", 0.2, 24_000),
            ("anna", 0.9, 24_000),
            ("ben", 0.7, 24_000),
            ("ben", 0.0, 24_000),
            ("ben", 0.9, 8_000),
        ]
    ):
        path = tmp_path / f"{number}.wav"
        if peak:
            tone = peak * np.sin(np.arange(RATE) / 20)
            soundfile.write(path, tone, RATE, subtype="FLOAT")
        else:
            path.write_text("no sound")
        made.append(Entry(path, speaker, 1.0, rate))
    return made


def test_the_good_are_kept_and_the_others_told_why(tmp_path: Path, entries: list[Entry]) -> None:
    opinions = Opinions(tmp_path / "said.jsonl", loudness)
    chosen = select(entries, opinions, 2.5, bandwidth_rate=16_000)
    assert [entry.path.stem for entry in chosen.kept] == ["0", "2", "3"]
    reasons = {refusal.path.stem: refusal.reason for refusal in chosen.refused}
    assert reasons["1"] == "DNSMOS is 1.00, expected at least 2.5"
    assert "4.wav" in reasons["4"] and "8000 Hz, expected 16000" in reasons["5"]
    assert summary_of(chosen) == {
        "recordings": 3,
        "hours": 0.0,
        "speakers": 2,
        "refused": 3,
        "heard": 4,
    }


def test_speakers_with_enough_are_not_listened_to(tmp_path: Path, entries: list[Entry]) -> None:
    chosen = select(entries, Opinions(tmp_path / "said.jsonl", loudness), 2.5, per_speaker=1)
    assert [entry.path.stem for entry in chosen.kept] == ["0", "3"]
    assert chosen.heard == 2


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path, entries: list[Entry]) -> None:
    file = tmp_path / "said.jsonl"
    select(entries[:3], Opinions(file, loudness), 2.5)
    whole = file.read_text()
    file.write_text(whole[:-9])  # killed while it wrote of the third
    chosen = select(entries[:4], Opinions(file, loudness), 2.5)
    assert chosen.heard == 2 and [entry.path.stem for entry in chosen.kept] == ["0", "2", "3"]
    assert select(entries[:4], Opinions(file, loudness), 2.5).heard == 0
    said = [json.loads(line)["dnsmos"] for line in file.read_text().splitlines() if line[-1] == "}"]
    assert said == pytest.approx([4.0, 1.0, 4.5, 3.5], abs=0.01)


def test_an_opinion_that_is_no_number_keeps_nothing(tmp_path: Path, entries: list[Entry]) -> None:
    chosen = select(entries[:1], Opinions(tmp_path / "said.jsonl", lambda wave: np.nan), 1.0)
    assert not chosen.kept


def test_the_command_writes_a_manifest_and_says_where_nothing_is_good_enough(
    tmp_path: Path, entries: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rtvc.cli.select import select as command

    monkeypatch.setattr(
        "rtvc.evaluate.judges.quality.dnsmos", lambda wave: {"ovrl": loudness(wave)}
    )
    manifest, out = tmp_path / "all.tsv", tmp_path / "clean.tsv"
    write_manifest(manifest, entries[:4])
    command(manifest, out, 2.5, 0, 0, as_json=True)
    assert sorted(entry.path.stem for entry in read_manifest(out)) == ["0", "2", "3"]
    assert "1.wav\tDNSMOS is 1.00" in (tmp_path / "clean.tsv.refused.tsv").read_text()
    with pytest.raises(TrainingError, match=r"no recording of .* lower --dnsmos"):
        command(manifest, tmp_path / "none.tsv", 4.9, 0, 0)


def test_a_summary_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary({"kept": 3, "refused": 1}, False)
    print_summary({"kept": 3}, True)
    assert capsys.readouterr().out == 'kept 3  refused 1\n{"kept": 3}\n'
