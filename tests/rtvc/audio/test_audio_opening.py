"""Recordings out of pipes and standard input, and headers that are wrong about their length."""

import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtvc.audio import opening
from rtvc.audio.headers import DamagedWarning
from rtvc.audio.io import SUFFIXES, check_output, decode, write
from rtvc.audio.recording import read
from rtvc.errors import AudioError

ROOT = Path(__file__).parents[3]
WAVE = np.random.default_rng(0).uniform(-0.3, 0.3, 48_000).astype(np.float32)


def made(path: Path, form: str = "WAV", subtype: str | None = "PCM_16") -> bytearray:
    """Two seconds at 24 kHz in a format of libsndfile; its bytes."""
    soundfile.write(path, WAVE, 24_000, format=form, subtype=subtype)
    return bytearray(path.read_bytes())


@pytest.mark.parametrize(
    ("form", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", None)]
)
def test_a_fifo_is_read_like_a_file(tmp_path: Path, form: str, subtype: str | None) -> None:
    data = made(tmp_path / "file", form, subtype)
    os.mkfifo(tmp_path / "pipe")
    feeder = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=[data], daemon=True)
    feeder.start()
    wave, rate = decode(tmp_path / "pipe")
    feeder.join(120)
    np.testing.assert_array_equal(wave, decode(tmp_path / "file")[0])
    assert rate == 24_000 and wave.shape == (48_000, 1)


@pytest.mark.parametrize("name", ["-", "/dev/stdin", "/dev/fd/0"])
def test_standard_input_is_read(tmp_path: Path, name: str) -> None:
    made(tmp_path / "file.wav")
    code = (
        f"from rtvc.audio.io import decode; w, r = decode({name!r}); print(w.shape, r,"
        " round(float(w.max()), 3))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(["cat", tmp_path / "file.wav"], stdout=subprocess.PIPE) as cat:
        told = subprocess.run(
            command, stdin=cat.stdout, env=environment, capture_output=True, text=True
        )
    assert told.stdout == f"(48000, 1) 24000 {round(float(WAVE.max()), 3)}\n", told.stderr
    with (tmp_path / "file.wav").open() as redirected:
        told = subprocess.run(
            command, stdin=redirected, env=environment, capture_output=True, text=True
        )
    assert told.stdout.startswith("(48000, 1)"), told.stderr


def test_what_is_no_recording_is_called_by_its_name(tmp_path: Path) -> None:
    for path, what in {
        "/dev/null": "a device or terminal",
        tmp_path: "a folder",
        tmp_path / "x": "not there",
    }.items():
        with pytest.raises(AudioError, match=f"expected an audio file, {path} is {what}"):
            decode(path)
    for name in ("x" * 5000, "a\0b.wav"):
        with pytest.raises(AudioError, match="is not there"):
            decode(name)


def test_a_pipe_that_never_ends_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "LONGEST_PIPE", 3 << 20)
    with subprocess.Popen(["cat", "/dev/zero"], stdout=subprocess.PIPE) as zeros:
        assert zeros.stdout is not None
        with pytest.raises(
            AudioError, match=r"expected a recording, .* gave 3145728 bytes and no end"
        ):
            decode(f"/dev/fd/{zeros.stdout.fileno()}")
        zeros.kill()


@pytest.mark.parametrize("container", [None, 0, 36])
@pytest.mark.parametrize("form", ["WAV", "AIFF"])
def test_a_recorder_that_was_killed_loses_nothing(
    tmp_path: Path, form: str, container: int | None
) -> None:
    """The length of the sound says 0, and that of the whole may."""
    data, order = made(tmp_path / "x", form), "little" if form == "WAV" else "big"
    start = data.index(b"data" if form == "WAV" else b"SSND")
    data[start + 4 : start + 8] = (0 if form == "WAV" else 8).to_bytes(4, order)  # type: ignore[arg-type]
    if form == "AIFF":
        frames = data.index(b"COMM") + 10
        data[frames : frames + 4] = bytes(4)
    if container is not None:
        data[4:8] = container.to_bytes(4, order)  # type: ignore[arg-type]
    (tmp_path / "x").write_bytes(data)
    with pytest.warns(
        DamagedWarning, match="holds 0 samples by its header, but 96000 bytes follow: it is read"
    ):
        wave, rate = decode(tmp_path / "x")
    assert rate == 24_000 and wave.shape == (48_000, 1)
    np.testing.assert_allclose(wave[:, 0], WAVE, atol=1 / 32768)
    assert (tmp_path / "x").read_bytes() == data, "nothing is put right on the disk"


def test_a_length_of_zero_that_cannot_be_put_right_is_told(tmp_path: Path) -> None:
    data = made(tmp_path / "x.rf64", "RF64")
    data[28:36] = bytes(8)  # the length of the sound
    (tmp_path / "x.rf64").write_bytes(data)
    with pytest.raises(AudioError, match=r"holds 0 samples by its header, but 9\d{4} bytes"):
        decode(tmp_path / "x.rf64")


@pytest.mark.parametrize(
    ("form", "subtype", "figures"),
    [
        ("WAV", "PCM_16", r"holds \d+ of the 96000 bytes of sound"),
        ("AIFF", "PCM_16", r"holds \d+ of the 96008 bytes of sound"),
        ("AU", "PCM_16", r"holds \d+ of the 96024 bytes"),
        ("W64", "PCM_16", r"holds \d+ of the 96104 bytes"),
        ("RF64", "PCM_16", r"holds \d+ of the 96104 bytes"),
        ("OGG", "VORBIS", "does not end with a whole last page"),
        ("MP3", None, r"holds [01]\.\d\d of the 2\.00 s"),
    ],
)
def test_a_recording_that_was_cut_off_is_warned_about(
    tmp_path: Path, form: str, subtype: str | None, figures: str
) -> None:
    data = made(tmp_path / "x", form, subtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(decode(tmp_path / "x")[0]) == 48_000, "nothing is said of a whole one"
    (tmp_path / "x").write_bytes(data[: len(data) * 2 // 3])
    with pytest.warns(DamagedWarning, match=figures + ".*: it may be damaged or cut off"):
        assert 12_000 < len(decode(tmp_path / "x")[0]) < 42_000


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
def test_lengths_that_programs_write_to_pipes_are_no_damage(tmp_path: Path, length: int) -> None:
    data = made(tmp_path / "x")
    data[40:44] = data[4:8] = length.to_bytes(4, "little")
    (tmp_path / "x").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(decode(tmp_path / "x")[0]) == 48_000


def test_streams_get_wav_unless_their_suffix_says_another(tmp_path: Path) -> None:
    for name, begins in (("pipe", b"RIFF"), ("pipe.flac", b"fLaC")):
        os.mkfifo(tmp_path / name)
        got: list[bytes] = []
        reader = threading.Thread(
            target=lambda path, into=got: into.append(path.read_bytes()), args=[tmp_path / name]
        )
        reader.start()
        write(tmp_path / name, WAVE)
        reader.join(120)
        assert got[0].startswith(begins)
        (tmp_path / "copy").write_bytes(got[0])
        assert len(read(tmp_path / "copy")) == 48_000
    assert check_output("-") == Path("-") and check_output("/dev/null") == Path("/dev/null")
    with pytest.raises(
        AudioError, match=f"expected a name that ends in {', '.join(SUFFIXES)}, got"
    ):
        check_output(tmp_path / "plain")


def test_short_names_of_formats_are_written(tmp_path: Path) -> None:
    for suffix, form in ((".aif", "AIFF"), (".oga", "OGG"), (".caf", "CAF"), (".w64", "W64")):
        assert soundfile.info(write(tmp_path / f"x{suffix}", WAVE)).format == form
