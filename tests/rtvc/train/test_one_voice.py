"""Fine-tuning to one voice by one command: what is held out is not learnt from, what is learnt is
closer, and a stopped run goes on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from evaluation import FakeEvaluators
from standins import speech

import rtvc
from rtvc.cli import main
from rtvc.data.manifest import Entry, read_manifest
from rtvc.models.streaming.assets import load_file, save_file
from rtvc.models.streaming.model import StreamingConfig, StreamingConverter
from rtvc.train.material.cutting import pieces
from rtvc.train.state import Checkpoints
from tests.support.small_models import SIZES

SMALL = ["--set", "data.batch=2", "--set", "data.seconds=1.0", "--set", "device=cpu"]
SMALL += ["--set", "workers=0", "--set", "log.tensorboard=false", "--set", "log.every=1"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Recordings of one person, what others say, a small model, and evaluators without weights."""
    (tmp_path / "anna").mkdir()
    (tmp_path / "others").mkdir()
    for number in range(10):
        wave = speech(2.0 + 0.1 * number, 24_000, 190 + 3 * number, seed=number)
        soundfile.write(tmp_path / "anna" / f"{number}.wav", wave, 24_000)
        (tmp_path / "anna" / f"{number}.txt").write_text("the quick brown fox")
    for number in range(2):
        soundfile.write(
            tmp_path / "others" / f"other{number}.wav", speech(1.5, 24_000, 110), 24_000
        )
    torch.manual_seed(0)
    save_file(StreamingConverter(StreamingConfig(**SIZES)), tmp_path / "small.safetensors")
    ears = FakeEvaluators().bundle()
    monkeypatch.setattr("rtvc.evaluate.evaluators.standard", lambda workers=1: ears)
    monkeypatch.setenv("RTVC_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(*more: str, steps: int = 4, held_out: int = 2) -> list[str]:
    return [
        *("train", "voice", "anna", "-o", "made/anna.safetensors", "--model", "small.safetensors"),
        *("--steps", str(steps), "--held-out", str(held_out), *SMALL, *more),
    ]


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    return found


def test_one_command_splits_trains_and_measures(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command("--sources", "others", "--json")) == 0
    result = told(capsys)
    run = folder / "runs" / "voice-anna"
    train, held = (
        {entry.path.name for entry in read_manifest(run / f"{name}.jsonl")}
        for name in ("train", "held_out")
    )
    assert len(held) == 2 and len(train) == 8 and not held & train
    made_of = {Path(entry["path"]).name for entry in rtvc.Voice.load("made/anna.voice").references}
    assert made_of <= train, "the voice knows nothing of what is held out"
    assert result["steps"] == 4 and result["held_out"] == 2
    for metric in ("wer", "secs2_target"):
        assert result["metrics"][metric]["pairs"] == 2
    for when in ("before", "after"):
        found = json.loads((run / f"{when}.json").read_text())
        assert {pair["source"] for pair in found["pairs"]} == {"other0.wav", "other1.wav"}
        assert all(set(pair["references"]) == held for pair in found["pairs"])
    before, after = load_file("small.safetensors"), load_file("made/anna.safetensors")
    changed = {
        name.split(".")[0]
        for (name, a), b in zip(
            before.state_dict().items(), after.state_dict().values(), strict=True
        )
        if not torch.equal(a, b)
    }
    assert changed == {"decoder", "affine"}
    line = "convert others/other0.wav -r made/anna.voice --model made/anna.safetensors -o said.wav"
    assert main(line.split()) == 0
    wave, _ = soundfile.read("said.wav")
    assert len(wave) == 36_000 and np.isfinite(wave).all()


def test_a_table_for_people_and_the_held_out_recordings_as_sources(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(steps=1)) == 0
    printed = capsys.readouterr().out
    for word in ("SECS2 to target", "WER", "before", "after", "made/anna.voice"):
        assert word in printed
    result = json.loads((folder / "runs" / "voice-anna" / "after.json").read_text())
    for pair in result["pairs"]:
        assert pair["source"] not in pair["references"] and len(pair["references"]) == 1
        assert pair["transcript"] == "the quick brown fox"


def test_a_stopped_run_goes_on_as_if_it_had_not(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def weights(run: str) -> dict[str, torch.Tensor]:
        found = Checkpoints(Path(run) / "run").latest()
        assert found is not None and found[0] == 4
        return {name: tensor for name, tensor in found[1]["modules"]["decoder"].items()}

    schedule = ("--no-measure", "--set", "optimizer.schedule=constant")
    assert main(command("--folder", "whole", *schedule)) == 0
    assert main(command("--folder", "parts", *schedule, steps=2)) == 0
    assert main(command("--folder", "parts", *schedule)) == 0
    assert "resuming at step 2" in capsys.readouterr().err
    whole, parts = weights("whole"), weights("parts")
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []
    assert main(command("--folder", "whole", "--json", *schedule)) == 0
    assert told(capsys)["steps"] == 4, "a finished run has nothing to do"


def test_what_is_learnt_is_closer_on_what_was_held_out(folder: Path) -> None:
    settings = ("optimizer.lr=1e-2", "optimizer.warmup=0", "ema=0.5", "log.validate_every=1")
    more = [word for setting in settings for word in ("--set", setting)]
    assert main(command("--no-measure", *more, steps=12)) == 0
    lines = (folder / "runs" / "voice-anna" / "run" / "metrics.jsonl").read_text().splitlines()
    curve = [line["valid/stft"] for line in map(json.loads, lines) if "valid/stft" in line]
    assert len(curve) == 12 and curve[-1] < 0.9 * curve[0]


def test_long_recordings_are_cut_in_their_pauses(tmp_path: Path) -> None:
    rate, rng = 16_000, np.random.default_rng(0)
    wave = 0.1 * rng.standard_normal(45 * rate)
    for second in (12, 21, 33):
        wave[second * rate : second * rate + rate // 2] *= 0.01
    path = tmp_path / "long.wav"
    soundfile.write(path, wave, rate)
    found = pieces(Entry(path, "anna", 45.0, text="words"), tmp_path / "pieces")
    assert sum(entry.seconds for entry in found) == pytest.approx(45.0)
    ends = np.cumsum([entry.seconds for entry in found])[:-1]
    assert all(any(second <= end <= second + 0.5 for second in (12, 21, 33)) for end in ends)
    assert len(found) == 4 and not any(entry.text for entry in found)
    short = Entry(path, "anna", 19.0)
    assert pieces(short, tmp_path / "none") == [short] and not (tmp_path / "none").exists()


def test_what_cannot_be_learnt_from_is_refused_before_the_work(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said() -> str:
        return " ".join(capsys.readouterr().err.split())

    table = folder / "two.tsv"
    table.write_text("path\tspeaker\nanna/0.wav\ta\nanna/1.wav\tb\n")
    assert main(["train", "voice", "two.tsv", "-o", "x.safetensors", "--no-measure"]) == 2
    assert "expected recordings of one person" in said()
    assert main(["train", "voice", "others", "-o", "x.safetensors", "--no-measure"]) == 2
    assert "expected at least 4 recordings" in said()
    assert main(["train", "voice", "anna", "-o", "x.pth", "--no-measure"]) == 2
    assert "ends in .safetensors" in said()
    assert not list(folder.glob("x.*"))
