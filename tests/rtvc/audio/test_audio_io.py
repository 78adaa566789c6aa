"""Reading, resampling and writing recordings."""

import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from rtvc.audio.check import AudioWarning
from rtvc.audio.io import SUFFIXES, decode, write
from rtvc.audio.recording import prepare, read
from rtvc.audio.resample import check_rate, resample, resampled_length
from rtvc.errors import AudioError


def tone(rate: int, seconds: float = 1.0, hertz: float = 440.0) -> np.ndarray:
    """A sine of level 0.5, (N,) float32."""
    return (0.5 * np.sin(2 * math.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype(
        np.float32
    )


def inner(wave: np.ndarray | torch.Tensor) -> np.ndarray:
    """Without the edges, where filters see the silence outside."""
    return np.asarray(wave)[2400:-2400]


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 24000, 44100, 48000, 96000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_rate_and_channel_count_becomes_mono_at_24_khz(
    tmp_path: Path, rate: int, channels: int
) -> None:
    path = tmp_path / "in.wav"
    soundfile.write(path, np.repeat(tone(rate)[:, None], channels, 1), rate, subtype="FLOAT")
    wave = read(path)
    assert wave.shape == (24000,) and wave.dtype == torch.float32
    assert np.abs(inner(wave) - inner(tone(24000))).max() < 2e-4


@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [
        (".flac", "PCM_24"),
        (".aiff", "PCM_16"),
        (".ogg", "VORBIS"),
        (".mp3", None),
        (".wav", "ULAW"),
        (".caf", None),
    ],
)
def test_formats_of_libsndfile_are_read(tmp_path: Path, suffix: str, subtype: str | None) -> None:
    path = tmp_path / f"in{suffix}"
    rising = np.linspace(0, 1, 96000, dtype=np.float32) * tone(48000, 2.0)
    soundfile.write(path, rising, 48000, subtype=subtype)
    wave = read(path)
    assert abs(len(wave) - 48000) < 3000
    assert abs(wave.square().mean().sqrt().item() - np.sqrt(np.mean(np.square(rising)))) < 0.02


def layout(name: str) -> np.ndarray:
    """A tone at 24 kHz in some of several channels, as recordings hold speech, (N, C)."""
    x, rng = tone(24000), np.random.default_rng(0)
    nothing, hiss = np.zeros_like(x), 0.002 * rng.standard_normal(len(x)).astype(np.float32)
    rumble = 0.9 * np.sin(2 * math.pi * 40 * np.arange(len(x)) / 24000).astype(np.float32)
    channels = {
        "equal": [x, x],
        "left only": [x, nothing],
        "right only, the left hisses": [hiss, x],
        "one of six": [nothing, nothing, x, nothing, nothing, nothing],
        "5.1 with a loud low-frequency channel": [nothing, nothing, x, rumble, nothing, nothing],
        "beside an offset": [x, hiss / 10 + 0.5],
        "panned": [x, 0.3 * x],
        "opposed": [x, -0.9 * x],
        "opposed entirely": [-x, x],
    }
    return np.stack(channels[name], 1)


LAYOUTS = [
    "equal",
    "left only",
    "right only, the left hisses",
    "one of six",
    "5.1 with a loud low-frequency channel",
    "beside an offset",
]


@pytest.mark.parametrize("name", [*LAYOUTS, "panned"])
def test_speech_in_any_channel_keeps_its_level(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        level = 20 * np.log10(inner(prepare(layout(name), 24000)).std() / inner(tone(24000)).std())
    assert abs(level) < 0.3, level


def test_equal_channels_are_the_mono_recording_bit_for_bit() -> None:
    np.testing.assert_array_equal(prepare(layout("equal"), 24000), tone(24000))


@pytest.mark.parametrize("name", ["opposed", "opposed entirely"])
def test_of_channels_that_cancel_each_other_the_loudest_is_used_and_said(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / "both.wav"
    soundfile.write(path, layout(name), 24000, subtype="FLOAT")
    with pytest.warns(
        AudioWarning, match=r"both\.wav: its channels cancel each other, .* channel 1, is used"
    ):
        np.testing.assert_array_equal(read(path), layout(name)[:, 0])


def test_a_long_file_is_read_in_pieces_and_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a file is kept as it was decoded or decoded twice, and how it is cut, changes
    nothing."""
    path = tmp_path / "long.wav"
    rng = np.random.default_rng(0)
    soundfile.write(
        path, 0.1 * rng.standard_normal((99_999, 3)) * [1, 0.5, 0.8], 44100, subtype="PCM_16"
    )
    whole = read(path)
    monkeypatch.setattr("rtvc.audio.io.BLOCK", 10_000)
    monkeypatch.setattr("rtvc.audio.recording.KEPT", 100)
    torch.testing.assert_close(read(path), whole, rtol=0, atol=1e-6)
    assert torch.equal(prepare(*decode(path)), whole)


@pytest.mark.skipif(
    not Path("/proc/self/status").is_file(),
    reason="the peak of a process is read from Linux' /proc",
)
def test_memory_grows_by_four_bytes_a_sample_of_the_result_and_by_nothing_else(
    tmp_path: Path,
) -> None:
    """Stereo at 48 kHz, read and checked: two hours, of which 24 kHz mono is 0.69 GB, stay under 1
    GB."""
    code = """
import re, sys
from pathlib import Path
from rtvc.audio.recording import read
peak = lambda: 1024 * int(
    re.search("VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
)
read(sys.argv[1])
before = peak()
wave = read(sys.argv[2])
print((peak() - before) / (len(wave) / 24000), before)
"""
    noise = np.random.default_rng(0).integers(-3000, 3000, (48_000 * 60, 2), np.int16)
    for name, minutes in (("short.wav", 2), ("long.wav", 8)):
        with soundfile.SoundFile(tmp_path / name, "w", 48_000, 2, "PCM_16") as file:
            for _ in range(minutes):
                file.write(noise)
    command = [sys.executable, "-c", code, str(tmp_path / "short.wav"), str(tmp_path / "long.wav")]
    growth, base = map(
        float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    )
    assert growth < 1.1 * 4 * 24_000, f"{growth:.0f} bytes a second"
    assert base + 2 * 3600 * 4 * 24_000 < 1e9, (
        f"{base / 1e6:.0f} MB before anything long is read, torch itself among it"
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_written_can_be_read_again(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"out{suffix}", torch.from_numpy(tone(24000, 2.0)))
    assert path.name in os.listdir(tmp_path) and len(os.listdir(tmp_path)) == 1, (
        "no temporary file is left"
    )
    wave = read(path)
    lossless = suffix in (".wav", ".flac", ".aiff")
    assert abs(len(wave) - 48000) <= (0 if lossless else 3000)
    assert abs(inner(wave).std() - 0.5 / math.sqrt(2)) < (1e-4 if lossless else 0.02)


def test_loud_samples_are_limited_and_never_wrap(tmp_path: Path) -> None:
    path = write(tmp_path / "loud.wav", 1.5 * torch.ones(24000))
    assert decode(path)[0].min() > 0.99


def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "out.wav", tone(24000))
    before = path.read_bytes()

    def full(*args: object, **options: object) -> None:
        Path(os.fsdecode(args[0])).write_bytes(b"half")  # type: ignore[arg-type]
        raise OSError("No space left on device")

    monkeypatch.setattr(soundfile, "write", full)
    with pytest.raises(AudioError, match=r"cannot be written \(No space left on device\)"):
        write(path, tone(24000))
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["out.wav"]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("out.xyz", r"ends in \.wav, \.flac.*, got .*out\.xyz"),
        ("out", "expected a name that ends in"),
        ("missing/out.wav", "cannot be written"),
    ],
)
def test_impossible_outputs_are_refused(tmp_path: Path, name: str, wanted: str) -> None:
    with pytest.raises(AudioError, match=wanted):
        write(tmp_path / name, tone(24000))


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"expected an audio file, .*gone\.wav is not there"):
        read(tmp_path / "gone.wav")
    with pytest.raises(AudioError, match="is a folder"):
        read(tmp_path)
    (tmp_path / "text.wav").write_text("these are not the samples that you are looking for")
    with pytest.raises(
        AudioError, match=r"text\.wav cannot be read as audio \(Format not recognised\): convert it"
    ):
        read(tmp_path / "text.wav")
    (tmp_path / "voice.raw").write_bytes(bytes(4000))
    with pytest.raises(AudioError, match="cannot be read as audio"):
        read(tmp_path / "voice.raw")


def test_a_truncated_file_gives_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "whole.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 48000), 24000)
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(AudioError, match="check that it is whole"):
        read(path)


def test_a_header_that_lies_allocates_nothing(tmp_path: Path) -> None:
    """A WAV file of 1 s whose header promises 4 GB reads as what is there."""
    path = tmp_path / "liar.wav"
    soundfile.write(path, tone(24000), 24000)
    data = bytearray(path.read_bytes())
    data[40:44] = (0xFFFFFF00).to_bytes(4, "little")
    path.write_bytes(data)
    assert len(read(path)) == 24000


def test_checks_can_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "short.wav"
    soundfile.write(path, np.zeros(100), 24000)
    assert len(read(path, checked=False)) == 100
    assert len(prepare(np.zeros(100), 24000, checked=False)) == 100
    with pytest.raises(AudioError, match="NaN"):
        prepare(np.full(100, np.nan), 24000, checked=False)


def test_samples_in_memory() -> None:
    wave = tone(16000)
    wanted = prepare(wave, 16000)
    assert wanted.shape == (24000,)
    torch.testing.assert_close(prepare(torch.from_numpy(wave), 16000), wanted)
    torch.testing.assert_close(prepare(wave.astype(np.float64), 16000), wanted)
    torch.testing.assert_close(
        prepare(np.round(wave * 32767).astype(np.int16), 16000), wanted, atol=1e-4, rtol=0
    )
    same = tone(24000)
    prepared = prepare(same, 24000)
    prepared += 1
    assert np.abs(same).max() <= 0.5, "what the caller holds is not written to"
    with pytest.raises(AudioError, match="got uint8"):
        prepare(np.zeros(24000, np.uint8), 24000)


@pytest.mark.parametrize(
    "pair", [(44100, 24000), (16000, 24000), (24000, 44100), (48000, 24000), (11025, 24000)]
)
@pytest.mark.parametrize("samples", [1, 2, 147, 1001, 44101])
def test_the_length_after_resampling_is_known(pair: tuple[int, int], samples: int) -> None:
    assert len(resample(np.zeros(samples, np.float32), *pair)) == resampled_length(samples, *pair)


def test_resampling_is_aligned_and_keeps_what_is_above_the_band_out() -> None:
    np.testing.assert_allclose(
        inner(resample(tone(44100), 44100, 24000)), inner(tone(24000)), atol=2e-4
    )
    assert np.abs(inner(resample(tone(48000, hertz=15000), 48000, 24000))).max() < 1e-4


@pytest.mark.parametrize("rate", [0, -1, 3999, 24000.5, True, 10**7])
def test_impossible_rates_are_refused(rate: float) -> None:
    with pytest.raises(AudioError, match="whole number from 4000 to 768000 Hz"):
        check_rate(rate)
