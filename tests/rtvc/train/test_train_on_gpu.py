"""Half an hour of a GPU: what is packed comes out as it was, a stage trains by the clock, weights
come home in parts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from rtvc.data.utterance import load_utterance
from rtvc.errors import CheckpointError, TrainingError
from rtvc.train.on_gpu import app
from rtvc.train.state import load_weights
from tests.support.unit_speech import make_unit_speech

RUNNER = CliRunner()


def ran(*arguments: str) -> dict[str, object]:
    result = RUNNER.invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout.strip().splitlines()[-1]))


def test_speech_travels_in_pieces(tmp_path: Path) -> None:
    folder = make_unit_speech(tmp_path / "units", 2)
    told = ran("pack", str(folder), "-o", str(tmp_path / "pieces"), "--megabytes", "0.05")
    pieces = sorted((tmp_path / "pieces").glob("*.zip"))
    assert told["utterances"] == 8 and len(pieces) == told["pieces"] and len(pieces) > 1
    assert all(path.stat().st_size <= 50_000 for path in pieces)
    assert ran("unpack", str(tmp_path / "pieces"), "-o", str(tmp_path / "again")) == {
        "unpacked": 8,
        "there": 8,
    }
    assert ran("unpack", str(tmp_path / "pieces"), "-o", str(tmp_path / "again")) == {
        "unpacked": 0,
        "there": 8,
    }
    before, after = (
        load_utterance(folder / "anna_1.npz"),
        load_utterance(tmp_path / "again" / "units__anna_1.npz"),
    )
    assert np.array_equal(before.units, after.units) and np.array_equal(
        before.phonemes, after.phonemes
    )
    assert (
        len(before.audio) == len(after.audio)
        and after.speaker == "anna"
        and after.bandwidth == 16_000
    )
    lags = np.arange(-50, 51)
    wave = before.audio.astype(np.float64)
    likeness = [
        np.corrcoef(wave[100:-100], np.roll(after.audio, -lag)[100:-100])[0, 1] for lag in lags
    ]
    assert lags[int(np.argmax(likeness))] == 0 and max(likeness) > 0.9, (
        "Opus keeps the wave in its place"
    )
    pieces[0].write_bytes(pieces[0].read_bytes()[:500])
    with pytest.raises(TrainingError, match="pack or fetch it again"):
        ran("unpack", str(tmp_path / "pieces"), "-o", str(tmp_path / "third"))


def test_a_stage_trains_by_the_clock_and_its_weights_come_home(tmp_path: Path) -> None:
    folder = make_unit_speech(tmp_path / "units", 2)
    sizes = ["hidden=16", "dilations=[1, 2]", "attention=[2]", "heads=4"]
    settings = [
        "device=cpu",
        "workers=0",
        "data.batch=2",
        "data.frames=32",
        "data.held_out=2",
        *[f"model.{size}" for size in sizes],
    ]
    flags = [word for setting in settings for word in ("--set", setting)]
    home, run = tmp_path / "home", tmp_path / "run"
    told = ran(
        "train",
        "judge",
        str(folder),
        "-o",
        str(home),
        "--minutes",
        "0.02",
        "--run",
        str(run),
        "--megabytes",
        "0.045",
        *flags,
    )
    assert told["reason"] == "max_minutes" and told["device"] == "cpu"
    files = sorted(home.glob("weights-*.safetensors"))
    assert len(files) > 1 and all(path.stat().st_size < 50_000 for path in files)
    ran("join", str(home), "-o", str(tmp_path / "joined.safetensors"))
    made, joined = (
        load_weights(run)["judge"],
        load_weights(tmp_path / "joined.safetensors")["judge"],
    )
    assert made.keys() == joined.keys() and all(
        torch.equal(made[name].half().float(), joined[name]) for name in made
    )
    for note in ("", "[]", "{}", "[" * 10**5):
        (home / "note.json").write_text(note)
        with pytest.raises(CheckpointError, match="is not whole"):
            ran("join", str(home), "-o", str(tmp_path / "joined.safetensors"))
    files[0].write_bytes(b"no")
    with pytest.raises(CheckpointError, match="get the file again"):
        ran("join", str(home), "-o", str(tmp_path / "joined.safetensors"))
