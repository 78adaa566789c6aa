"""Voices as files, and the report on the recordings they are made of."""

import json
import math
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file
from standins import REPORT, recording, speech

from rtvc.errors import AudioError, VoiceError
from rtvc.voices.report import Report, advise, measure, report
from rtvc.voices.voice import Voice
from rtvc.voices.voice_file import LARGEST_FILE


def a_voice(seed: int = 0, name: str = "anna", **source: Any) -> Voice:
    """A voice of random vectors."""
    generator = torch.Generator().manual_seed(seed)
    return Voice(
        torch.randn(128, generator=generator), torch.randn(128, generator=generator), name, source
    )


def test_a_voice_survives_its_file(tmp_path: Path) -> None:
    voice = a_voice(name="Änne 🎤", space="stream", references=[REPORT])
    path = voice.save(tmp_path / "anna.voice")
    assert os.listdir(tmp_path) == ["anna.voice"] and path.stat().st_size < 4096
    again = Voice.load(path)
    assert torch.equal(again.acoustic, voice.acoustic) and torch.equal(
        again.prosodic, voice.prosodic
    )
    assert (again.name, again.source, again.space, again.speech) == (
        "Änne 🎤",
        voice.source,
        "stream",
        5.5,
    )
    assert repr(again) == "Voice('Änne 🎤', space='stream', speech=5.5 s)"


def test_vectors_are_float32_and_checked() -> None:
    assert (
        Voice(
            torch.zeros(128, dtype=torch.float64), torch.zeros(128, dtype=torch.float16)
        ).prosodic.dtype
        == torch.float32
    )
    with pytest.raises(
        VoiceError, match=r"acoustic style of 'x' to have the shape \(128,\), got \(1, 128\)"
    ):
        Voice(torch.zeros(1, 128), torch.zeros(128), "x")
    with pytest.raises(VoiceError, match="prosodic style of 'x' holds NaN"):
        Voice(torch.zeros(128), torch.full((128,), math.nan), "x")


def test_mixing() -> None:
    a, b = a_voice(1, "a", space="s", references=[REPORT]), a_voice(2, "b")
    mixed = Voice.mix({a: 3, b: 1})
    torch.testing.assert_close(mixed.acoustic, 0.75 * a.acoustic + 0.25 * b.acoustic)
    torch.testing.assert_close(mixed.prosodic, 0.75 * a.prosodic + 0.25 * b.prosodic)
    assert (mixed.name, mixed.space, mixed.parts, mixed.speech) == (
        "75% a + 25% b",
        "s",
        [(0.75, "a"), (0.25, "b")],
        5.5,
    )
    nested = Voice.mix({mixed: 1, a: 1}, "both")
    assert nested.name == "both" and len(nested.references) == 2
    with pytest.raises(VoiceError, match=r"different models \(s, t\) cannot be mixed"):
        Voice.mix({a: 1, a_voice(3, space="t"): 1})


@pytest.mark.parametrize("weights", [[], [0.0], [1.0, -0.5], [math.nan], [math.inf]])
def test_impossible_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(VoiceError, match="at least one above 0 and none below"):
        Voice.mix({a_voice(seed): weight for seed, weight in enumerate(weights)})


def test_timbre_of_one_and_prosody_of_another() -> None:
    a, b = a_voice(1, "a", space="s"), a_voice(2, "b", references=[REPORT])
    both = a.with_prosody_of(b)
    assert torch.equal(both.acoustic, a.acoustic) and torch.equal(both.prosodic, b.prosodic)
    assert both.name == "a with the prosody of b" and both.space == "s" and both.speech == 5.5
    with pytest.raises(VoiceError, match="cannot be mixed"):
        a.with_prosody_of(a_voice(space="t"))


def written(path: Path, tensors: dict[str, torch.Tensor] | None = None, **metadata: str) -> Path:
    """A safetensors file that is nearly a voice."""
    good = {"format": "rtvc-voice", "version": "1", "name": "x", "source": "{}"}
    save_file(
        tensors or {"acoustic": torch.zeros(128), "prosodic": torch.zeros(128)},
        path,
        good | metadata,
    )
    return path


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"format": "other"}, "a safetensors file but no voice"),
        ({"version": "2"}, "expected a voice of version 1, got 2: update rtvc"),
        ({"source": "[1"}, "a source that is not JSON"),
        ({"source": "[" * 100_000}, "a source that is not JSON"),
        ({"source": "[]"}, "expected an object as source, got list"),
        ({"tensors": {"weight": torch.zeros(2)}}, r"no voice \(it holds weight\)"),
        ({"tensors": {"acoustic": torch.zeros(64), "prosodic": torch.zeros(128)}}, r"got \(64,\)"),
        (
            {"tensors": {"acoustic": torch.zeros(128).long(), "prosodic": torch.zeros(128)}},
            "expected floating point, got int64 numbers",
        ),
        (
            {"tensors": {"acoustic": torch.full((128,), math.inf), "prosodic": torch.zeros(128)}},
            "NaN or infinity",
        ),
    ],
)
def test_foreign_and_hostile_files_give_one_clear_error(
    tmp_path: Path, change: dict[str, Any], wanted: str
) -> None:
    with pytest.raises(VoiceError, match=wanted):
        Voice.load(written(tmp_path / "x.voice", **change))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"RIFF" + bytes(500),
        b"\x80\x04cposix\nsystem\n",
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 8) + b'{"a": 1}',
    ],
)
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.voice"
    path.write_bytes(content)
    with pytest.raises(VoiceError, match="is no voice file"):
        Voice.load(path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = a_voice().save(tmp_path / "x.voice")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(VoiceError, match="is no voice file"):
        Voice.load(path)


def test_missing_and_oversized_files_are_refused(tmp_path: Path) -> None:
    told = r"expected a voice file, got nothing there: .* `rtvc voice create"
    with pytest.raises(VoiceError, match=told):
        Voice.load(tmp_path / "gone.voice")
    big = tmp_path / "big.voice"
    with big.open("wb") as file:
        file.truncate(LARGEST_FILE + 1)
    with pytest.raises(VoiceError, match="expected a few kB, got"):
        Voice.load(big)


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(VoiceError, match="not JSON"):
        a_voice(what={1, 2}).save(tmp_path / "x.voice")
    with pytest.raises(VoiceError, match="not JSON"):
        a_voice(what=math.nan).save(tmp_path / "x.voice")
    with pytest.raises(VoiceError, match="at most 1048576 bytes, got 10"):
        a_voice(what="x" * LARGEST_FILE).save(tmp_path / "x.voice")
    with pytest.raises(VoiceError, match="cannot be written"):
        a_voice().save(tmp_path / "gone" / "x.voice")
    assert not os.listdir(tmp_path)


def test_nothing_in_a_source_is_believed(tmp_path: Path) -> None:
    deep: dict[str, Any] = {"references": [REPORT]}
    for _ in range(200):
        deep = {"mix": [deep]}
    incomplete = {name: value for name, value in REPORT.items() if name != "advice"}
    source = {
        "references": [1, {"path": 3}, incomplete, REPORT | {"speech": "long"}],
        "mix": {"a": 1},
        "deep": deep,
    }
    voice = Voice.load(written(tmp_path / "x.voice", source=json.dumps(source), name="a\x1b[31mb"))
    assert voice.references == [] and voice.parts == [] and voice.name == "a[31mb"
    told = Voice.load(
        written(
            tmp_path / "y.voice",
            source=json.dumps({"mix": [3, {"share": "x"}, {"share": 0.5}], "references": 7}),
            name="",
        )
    )
    assert told.parts == [(0.5, "None")] and told.name == "y"


def test_a_good_reference_needs_no_advice(tmp_path: Path) -> None:
    found = report(recording(tmp_path / "ref.wav", 14))
    assert (found.advice, found.grade) == ((), "good")
    assert found.seconds == 14 and 5 < found.speech < 9
    assert found.as_dict()["path"] == str(tmp_path / "ref.wav")
    with pytest.raises(AudioError):
        report(tmp_path / "gone.wav")


@pytest.mark.parametrize("wanted", [5, 15, 25, 35])
def test_the_noise_is_estimated_within_three_decibels(wanted: float) -> None:
    clean = speech(8)
    loud = clean[np.convolve(clean**2, np.ones(400), "same") > 0.5]
    noise = (
        np.random.default_rng(3).standard_normal(len(clean))
        * np.sqrt(np.mean(loud**2))
        * 10 ** (-wanted / 20)
    )
    assert measure((clean + noise).astype(np.float32), 16000).snr == pytest.approx(wanted, abs=3)


def test_steady_noise_is_no_speech() -> None:
    found = measure(0.1 * np.random.default_rng(0).standard_normal(32000).astype(np.float32), 16000)
    assert found.speech < 0.1 and found.snr < 3 and found.grade == "poor"


@pytest.mark.parametrize("cut", [3400, 7000])
def test_the_bandwidth_is_found(cut: float) -> None:
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(96000))
    spectrum[int(cut * 96000 / 48000) :] = 0
    wave = np.fft.irfft(spectrum) * np.clip(np.sin(np.arange(96000) / 4000), 0, 1) * 0.2
    found = measure(wave.astype(np.float32), 48000)
    assert found.bandwidth == pytest.approx(cut, abs=300)
    assert any("kHz" in line for line in found.advice) == (cut < 6000)


def test_level_and_clipping() -> None:
    quiet = measure(0.01 * speech(8), 16000)
    assert quiet.level < -40 and any("very quiet" in line for line in quiet.advice)
    clipped = measure(np.clip(4 * speech(8), -0.5, 0.5), 16000)
    assert clipped.clipped > 0.05 and any("clipped" in line for line in clipped.advice)
    assert measure(np.zeros(10, np.float32), 16000).bandwidth == 0, (
        "even nothing is measured without a crash"
    )


def test_advice_and_grades() -> None:
    good = {
        "seconds": 20.0,
        "speech": 15.0,
        "snr": 40.0,
        "bandwidth": 8000.0,
        "clipped": 0.0,
        "level": -20.0,
    }
    assert advise(**good) == [] and Report("", **good, advice=()).grade == "good"
    worse = {"speech": 3.0, "snr": 10.0, "bandwidth": 3500.0, "clipped": 0.01, "level": -50.0}
    for name, value in worse.items():
        assert len(advise(**(good | {name: value}))) == 1, name
    assert Report("", **good, advice=("a", "b")).grade == "usable"
    assert Report("", **(good | {"speech": 0.5}), advice=("a",)).grade == "poor"
    assert len(advise(**(good | worse))) == 5


def test_stereo_recordings_are_measured(tmp_path: Path) -> None:
    path = recording(tmp_path / "mono.wav", 6)
    wave, rate = soundfile.read(path, dtype="float32")
    assert measure(np.stack([wave, wave], 1), rate) == measure(wave, rate)
