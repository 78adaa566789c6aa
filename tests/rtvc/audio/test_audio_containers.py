"""Recordings of phones and browsers: length, level and rate of what comes out of them."""

import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from standins import speech

pytest.importorskip("av", reason="PyAV is not installed: pip install 'rtvc-engine[formats]'")

from containers import KINDS, contained

from rtvc.audio import containers
from rtvc.audio.containers import container_of
from rtvc.audio.headers import DamagedWarning
from rtvc.audio.io import decode
from rtvc.audio.recording import read
from rtvc.errors import AudioError, DependencyError

ROOT = Path(__file__).parents[3]
RATE, COUNT = 48_000, 100_000


def chirp(count: int = COUNT, rate: int = RATE) -> np.ndarray:
    """Level 0.5, from 200 Hz upwards: one alignment only fits, (N,) float32."""
    at = np.arange(count) / rate
    return (0.5 * np.sin(2 * np.pi * (200 * at + 500 * at * at))).astype(np.float32)


def delay_of(wave: np.ndarray, source: np.ndarray) -> int:
    """Samples by which (N,) comes later than its source."""
    part = wave[30_000:38_000]
    found = [part @ source[30_000 - lag : 38_000 - lag] for lag in range(-4_096, 4_097)]
    return int(np.argmax(found)) - 4_096


@pytest.mark.parametrize(
    ("suffix", "frame", "delay", "error"),
    [
        (".m4a", 0, 0, 0.02),
        (".mp4", 0, 0, 0.02),
        (".alac", 0, 0, 2e-5),
        (".mov", 0, 0, 3e-5),
        (".webm", 0, 0, 0.03),
        (".mka", 0, 0, 1e-6),
        (".aac", 1024, 1024, 0.02),
        (".wma", 2048, -2048, 0.02),
    ],
)
def test_length_level_and_rate_are_those_of_what_was_recorded(
    tmp_path: Path, suffix: str, frame: int, delay: int, error: float
) -> None:
    """Exactly, but for AAC without a container and WMA, which know of frames only: those of FFmpeg
    begin one later or earlier."""
    (tmp_path / "said").write_bytes(contained(suffix, chirp(), RATE))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wave, rate = decode(tmp_path / "said")
    assert rate == RATE and wave.shape[1] == 1 and wave.dtype == np.float32
    assert len(wave) == COUNT if frame == 0 else abs(len(wave) - COUNT) <= 2 * frame
    assert delay_of(wave[:, 0], chirp()) == delay
    came, source = wave[30_000:38_000, 0], chirp()[30_000 - delay : 38_000 - delay]
    assert np.std(came - source) < error * np.std(source)


@pytest.mark.parametrize("suffix", [".m4a", ".webm", ".mka"])
def test_channels_are_kept_apart(tmp_path: Path, suffix: str) -> None:
    both = np.stack([chirp(), 0.3 * chirp()], 1)
    (tmp_path / "said").write_bytes(contained(suffix, both, RATE))
    wave, _ = decode(tmp_path / "said")
    assert wave.shape == (COUNT, 2)
    levels = wave[30_000:60_000].std(0) / both[30_000:60_000].std(0)
    np.testing.assert_allclose(levels, 1, atol=0.05)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 96_000])
def test_rates_are_those_of_the_file(tmp_path: Path, rate: int) -> None:
    (tmp_path / "said.m4a").write_bytes(contained(".m4a", chirp(2 * rate, rate), rate))
    wave, came = decode(tmp_path / "said.m4a")
    assert (came, len(wave)) == (rate, 2 * rate)
    assert len(read(tmp_path / "said.m4a")) == 48_000


def test_the_sound_of_a_film_is_read(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(contained(".mp4", chirp(), RATE, video=True))
    wave, rate = decode(tmp_path / "film.mp4")
    assert (len(wave), rate) == (COUNT, RATE) and delay_of(wave[:, 0], chirp()) == 0


@pytest.mark.parametrize("suffix", [".m4a", ".webm", ".wma", ".aac"])
def test_a_fifo_and_standard_input_are_read_like_a_file(tmp_path: Path, suffix: str) -> None:
    data = contained(suffix, chirp(), RATE)
    (tmp_path / "file").write_bytes(data)
    wanted = decode(tmp_path / "file")[0]
    os.mkfifo(tmp_path / "pipe")
    feeder = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=[data], daemon=True)
    feeder.start()
    np.testing.assert_array_equal(decode(tmp_path / "pipe")[0], wanted)
    feeder.join(120)
    code = "from rtvc.audio.io import decode; w, r = decode('-'); print(*w.shape, r)"
    told = subprocess.run(
        [sys.executable, "-c", code],
        input=data,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
    )
    assert told.stdout.decode() == f"{len(wanted)} 1 {RATE}\n", told.stderr


def test_a_browsers_webm_without_a_length_is_read_to_its_end(tmp_path: Path) -> None:
    """`MediaRecorder` writes on, and never goes back to say how long it was."""
    data = contained(".webm", chirp(), RATE)
    at = data.index(b"\x44\x89\x88")  # Duration, a float of eight bytes: a Void element of its size
    data = data[:at] + b"\xec\x89" + bytes(9) + data[at + 11 :]
    (tmp_path / "said.webm").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wave, rate = decode(tmp_path / "said.webm")
    assert (len(wave), rate) == (COUNT, RATE)


@pytest.mark.parametrize("suffix", [".webm", ".wma"])
def test_a_recording_that_was_cut_off_is_warned_about(tmp_path: Path, suffix: str) -> None:
    """Where the header says the length."""
    data = contained(suffix, chirp(), RATE)
    (tmp_path / "cut").write_bytes(data[: len(data) // 2])
    with pytest.warns(DamagedWarning, match=r"holds [01]\.\d\d of the 2\.\d\d s that its header"):
        assert 30_000 < len(decode(tmp_path / "cut")[0]) < 70_000


def test_a_wma_that_was_never_closed_has_no_length(tmp_path: Path) -> None:
    """A recorder that was killed leaves the flag of a broadcast: what is there is all of it."""
    data = bytearray(contained(".wma", chirp(), RATE))
    at = data.index(containers.ASF_PROPERTIES)
    assert containers.asf_seconds(bytes(data)) == pytest.approx(COUNT / RATE, abs=0.05)
    data[at + 88] |= containers.ASF_LIVE
    assert containers.asf_seconds(bytes(data)) == 0
    assert containers.asf_seconds(bytes(data[: at + 80])) == 0
    (tmp_path / "said.wma").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert abs(len(decode(tmp_path / "said.wma")[0]) - COUNT) <= 4096


def test_without_pyav_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    for suffix, name in ((".m4a", "M4A or MP4"), (".webm", "WebM or Matroska"), (".wma", "WMA")):
        path = tmp_path / f"said{suffix}"
        path.write_bytes(contained_head(suffix))
        wanted = rf"said{suffix} is {name}, .*pip install 'rtvc-engine\[formats\]', or convert"
        with pytest.raises(AudioError, match=wanted) as refused:
            decode(path)
        assert isinstance(refused.value, DependencyError)


def contained_head(suffix: str) -> bytes:
    """The first bytes of a file; PyAV is not needed to make them."""
    heads = {
        ".m4a": b"\0\0\0\x20ftypM4A ",
        ".webm": b"\x1aE\xdf\xa3",
        ".wma": bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"),
    }
    return heads[suffix] + bytes(1000)


@pytest.mark.parametrize("suffix", KINDS)
def test_what_is_damaged_gives_one_clear_error_or_what_is_left(tmp_path: Path, suffix: str) -> None:
    data = contained(suffix, 0.3 * speech(1.0, RATE), RATE)
    rng = np.random.default_rng(0)
    for _ in range(20):
        broken = bytearray(data)
        for at in rng.integers(16, len(data), 20):
            broken[at] = rng.integers(256)
        (tmp_path / "broken").write_bytes(broken)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                wave, _ = decode(tmp_path / "broken")
            except AudioError as error:
                assert "broken cannot be read as audio (" in str(error)
            else:
                assert wave.nbytes < 1 << 24


def test_a_list_of_other_files_is_no_recording(tmp_path: Path) -> None:
    """FFmpeg would open what a playlist names, anywhere on the disk or in the network."""
    (tmp_path / "secret.m4a").write_bytes(contained(".m4a", chirp(), RATE))
    for name, text in {
        "list.m4a": "#EXTM3U\n#EXTINF:2,\n{}\n",
        "list.webm": "ffconcat version 1.0\nfile {}\n",
        "list.wma": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n{}\n",
    }.items():
        (tmp_path / name).write_text(text.format(tmp_path / "secret.m4a"))
        assert container_of((tmp_path / name).read_bytes()) is None
        with pytest.raises(AudioError, match="cannot be read as audio"):
            decode(tmp_path / name)


def test_mp3_and_texts_are_not_taken_for_aac() -> None:
    tag = b"ID3\x04\0\0\0\0\1\0" + bytes(128)
    assert container_of(b"\xff\xf1\x50\x80") is containers.AAC
    assert container_of(tag + b"\xff\xf9\x50\x80") is containers.AAC
    for head in (b"\xff\xfb\x90\x64", tag + b"\xff\xfb\x90\x64", b"\xff\xfeH\0i\0", b"RIFF", b""):
        assert container_of(head) is None


@pytest.mark.skipif(
    not Path("/proc/self/status").is_file(), reason="the peak of a process is read from /proc"
)
def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    """Four minutes take hardly more than one; what they hold more is 34 MB."""
    code = """
import re, sys
from pathlib import Path
from rtvc.audio.recording import open_recording
peak = lambda: 1024 * int(
    re.search("VmHWM:\\\\s+(\\\\d+) kB", Path("/proc/self/status").read_text())[1]
)
import rtvc.audio.recording
rtvc.audio.recording.KEPT = 1 << 20
for path in sys.argv[1:]:
    recording = open_recording(path)
    assert sum(map(len, recording.mono(24_000))) == recording.frames // 2
    print(peak())
"""
    minute = np.tile(0.5 * speech(10.0, RATE), 6)
    for name, minutes in (("short.m4a", 1), ("long.m4a", 4)):
        (tmp_path / name).write_bytes(contained(".m4a", np.tile(minute, minutes), RATE))
    told = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "short.m4a", tmp_path / "long.m4a"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    short, long = map(int, told.stdout.split())
    print(f"{(long - short) / 1e6:.1f} MB more")
    assert long - short < 10e6, f"{(long - short) / 1e6:.1f} MB more"
