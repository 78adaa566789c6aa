"""Manifests out of real folder layouts: speakers, texts, bandwidths, and every kind of file that
must be refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtvc.cli import main
from rtvc.data.manifest import Entry, read_manifest, write_manifest
from rtvc.data.prepare import Limits, Refusal, check, find, with_phonemes
from rtvc.errors import TrainingError

CORPUS = Path(__file__).resolve().parents[4] / "shared" / "corpus"


def voice(
    path: Path, seconds: float = 1.5, rate: int = 24_000, highest: float = 12_000, gain: float = 0.3
) -> Path:
    """Syllables of filtered noise."""
    rng = np.random.default_rng(len(path.name))
    spectrum = np.fft.rfft(rng.standard_normal(int(seconds * rate)))
    frequencies = np.fft.rfftfreq(int(seconds * rate), 1 / rate)
    spectrum *= (frequencies < highest) / (1 + frequencies / 3000)
    wave = np.fft.irfft(spectrum, int(seconds * rate))
    wave *= np.abs(np.sin(2 * np.pi * 2 * np.arange(len(wave)) / rate)) ** 4
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, gain * wave / np.abs(wave).max(), rate)
    return path


def test_libritts(tmp_path: Path) -> None:
    voice(tmp_path / "dev" / "84" / "121123" / "84_121123_000007_000001.wav").with_suffix(
        ".normalized.txt"
    ).write_text("Hello\tthere,\nyou.")
    (entry,) = find(tmp_path)
    assert entry.speaker == "84" and entry.text == "Hello there, you."


def test_librispeech(tmp_path: Path) -> None:
    for name in ("84-121123-0000", "84-121123-0001"):
        voice(tmp_path / "84" / "121123" / f"{name}.flac", rate=16_000, highest=8_000)
    (tmp_path / "84" / "121123" / "84-121123.trans.txt").write_text(
        "84-121123-0000 GO DO YOU HEAR\n84-121123-0001 BUT IN LESS\n"
    )
    assert [(e.speaker, e.text) for e in find(tmp_path)] == [
        ("84", "GO DO YOU HEAR"),
        ("84", "BUT IN LESS"),
    ]


def test_vctk(tmp_path: Path) -> None:
    for mic in ("mic1", "mic2"):
        voice(tmp_path / "wav48_silence_trimmed" / "p225" / f"p225_001_{mic}.flac", rate=48_000)
    (tmp_path / "txt" / "p225").mkdir(parents=True)
    (tmp_path / "txt" / "p225" / "p225_001.txt").write_text("Please call Stella.\n")
    (entry,) = find(tmp_path)
    assert (
        entry.speaker == "p225"
        and entry.text == "Please call Stella."
        and entry.path.name.endswith("mic1.flac")
    )


def test_any_folder(tmp_path: Path) -> None:
    voice(tmp_path / "anna" / "deep" / "er" / "a.wav")
    voice(tmp_path / "bob" / "b.wav").with_suffix(".lab").write_text("lab text")
    voice(tmp_path / "c.wav")
    assert [(e.speaker, e.text) for e in find(tmp_path)] == [
        ("anna", ""),
        ("bob", "lab text"),
        (tmp_path.name, ""),
    ]


@pytest.mark.parametrize(
    ("rate", "highest", "wanted"),
    [
        (16_000, 8_000, 16_000),
        (48_000, 24_000, 24_000),
        (44_100, 3_900, 8_000),
        (48_000, 10_900, 22_050),
    ],
)
def test_bandwidth(tmp_path: Path, rate: int, highest: float, wanted: int) -> None:
    found = check(Entry(voice(tmp_path / "x.wav", 2.0, rate, highest), "x"), Limits())
    assert (
        isinstance(found, Entry)
        and found.bandwidth_rate == wanted
        and found.seconds == pytest.approx(2.0)
    )


def test_refusals(tmp_path: Path) -> None:
    whole = voice(tmp_path / "whole.flac")
    (tmp_path / "cut.flac").write_bytes(whole.read_bytes()[:2_000])
    (tmp_path / "text.wav").write_text("this is not audio")
    (tmp_path / "empty.wav").write_bytes(b"")
    voice(tmp_path / "short.wav", 0.7)
    voice(tmp_path / "long.wav", 4.0)
    soundfile.write(tmp_path / "silent.wav", np.zeros(48_000), 24_000)
    soundfile.write(
        tmp_path / "clipped.wav", np.sign(np.sin(np.arange(48_000) / 30)) * 0.99, 24_000
    )
    soundfile.write(
        tmp_path / "nan.wav", np.full(48_000, np.nan, np.float32), 24_000, subtype="FLOAT"
    )
    out = tmp_path / "m.jsonl"
    assert (
        main(["data", "prepare", str(tmp_path), "-o", str(out), "--longest", "3", "--no-phonemes"])
        == 0
    )
    assert [e.path.name for e in read_manifest(out)] == ["whole.flac"]
    lines = dict(
        line.split("\t") for line in (tmp_path / "m.jsonl.refused.tsv").read_text().splitlines()[1:]
    )
    reasons = {Path(name).name: reason for name, reason in lines.items()}
    words = {
        "cut": "cannot be read",
        "text": "cannot be read",
        "empty": "cannot be read",
        "short": "got 0.70 s",
        "long": "got 4.00 s",
    }
    words |= {"silent": "silent", "clipped": "clipped", "nan": "NaN"}
    assert {Path(name).stem for name in reasons} == set(words)
    for name, reason in reasons.items():
        assert words[Path(name).stem] in reason, reason


def test_the_command_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    voice(tmp_path / "corpus" / "anna" / "a.wav")
    (tmp_path / "corpus" / "bad.wav").write_text("no")
    out = tmp_path / "m.tsv"
    assert (
        main(
            ["data", "prepare", str(tmp_path / "corpus"), "-o", str(out), "--no-phonemes", "--json"]
        )
        == 0
    )
    summary = json.loads(capsys.readouterr().out)
    assert (
        summary["recordings"] == 1
        and summary["refused"] == 1
        and summary["reasons"] == {"cannot be read": 1}
    )
    assert main(["data", "show", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["missing_files"] == 0
    assert main(["data", "show", str(out)]) == 0 and "recordings" in capsys.readouterr().out
    assert main(["data", "prepare", str(tmp_path / "nowhere"), "-o", str(out)]) == 2
    assert "nowhere: expected a folder of recordings" in capsys.readouterr().err
    (tmp_path / "corpus" / "anna" / "a.wav").unlink()
    assert main(["data", "prepare", str(tmp_path / "corpus"), "-o", str(out), "--no-phonemes"]) == 2
    assert "refused" in capsys.readouterr().err


def test_quiet_recordings_can_be_refused(tmp_path: Path) -> None:
    path = tmp_path / "noisy.wav"
    soundfile.write(
        path, 0.1 * np.random.default_rng(0).standard_normal(48_000).clip(-3, 3), 24_000
    )
    found = check(Entry(path, "x"), Limits(quietest_snr=10))
    assert isinstance(found, Refusal) and "above the noise" in found.reason


@pytest.mark.parametrize("suffix", ["tsv", "jsonl"])
def test_manifests_round_trip_and_move(tmp_path: Path, suffix: str) -> None:
    inside, outside = (
        voice(tmp_path / "tree" / "wavs" / "a.wav"),
        voice(tmp_path / "elsewhere" / "b.wav"),
    )
    entries = [
        Entry(inside, "anna", 1.5, 16_000, 'say "hi"\tnow', "sˈeɪ"),
        Entry(outside, "bob", 1.25),
    ]
    write_manifest(tmp_path / "tree" / f"m.{suffix}", entries)
    back = read_manifest(tmp_path / "tree" / f"m.{suffix}")
    assert back == [Entry(inside, "anna", 1.5, 16_000, 'say "hi" now', "sˈeɪ"), entries[1]]
    (tmp_path / "tree").rename(tmp_path / "moved")
    assert (
        read_manifest(tmp_path / "moved" / f"m.{suffix}")[0].path
        == tmp_path / "moved" / "wavs" / "a.wav"
    )


def test_mistakes_in_manifests_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m.tsv"
    with pytest.raises(TrainingError, match="cannot be read"):
        read_manifest(path)
    path.write_text("path\tseconds\na.wav\tlong\n")
    with pytest.raises(
        TrainingError, match="line 2: expected a number in seconds: could not convert"
    ):
        read_manifest(path)
    path.write_text("file\tseconds\na.wav\t1\n")
    with pytest.raises(TrainingError, match="without a path"):
        read_manifest(path)
    path.write_text("path\n")
    with pytest.raises(TrainingError, match="names no recordings"):
        read_manifest(path)
    with pytest.raises(TrainingError, match=r"ending in .tsv or .jsonl, got"):
        write_manifest(tmp_path / "m.csv", [])
    (tmp_path / "m.jsonl").write_text('{"path": \n')
    with pytest.raises(TrainingError, match="cannot be read"):
        read_manifest(tmp_path / "m.jsonl")


def test_phonemes(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[list[str]] = []

    def spoken(texts: list[str], language: str) -> list[str]:
        heard.append(texts)
        return ["" if "?" in text else f"ipa {language}" for text in texts]

    monkeypatch.setattr("rtvc.teacher.phonemes.phonemize", spoken)
    texts = ["HELLO THERE", "Good day", "??", "", "kept"]
    entries = [
        Entry(Path(f"/{k}.wav"), "a", text=text, phonemes="x" if text == "kept" else "")
        for k, text in enumerate(texts)
    ]
    found = list(with_phonemes(entries, "en-gb", batch=2))
    assert heard == [["hello there", "Good day"], ["??"]]
    assert [e.phonemes if isinstance(e, Entry) else "refused" for e in found] == [
        "ipa en-gb",
        "ipa en-gb",
        "refused",
        "",
        "x",
    ]


def test_real_corpus_table() -> None:
    if not (CORPUS / "train.tsv").is_file():
        pytest.skip("needs the recordings of ../shared/corpus, beside this checkout")
    entries = read_manifest(CORPUS / "train.tsv")
    assert len(entries) == 6080 and len({e.speaker for e in entries}) == 254
    assert all(entry.path.is_file() for entry in entries[::200])
    some = [entry for entry in entries if entry.speaker in ("vctk_p239", "libri_1088")][::60]
    for entry in some:
        found = check(Entry(entry.path, entry.speaker), Limits())
        assert isinstance(found, Entry)
        assert (found.bandwidth_rate >= 22_050) == (entry.bandwidth_rate == 24_000)
        assert found.seconds == pytest.approx(entry.seconds, abs=0.05)
