"""Bad batches, full disks, damaged and hostile checkpoints."""

import io
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from rtvc.errors import AudioError, CheckpointError, DependencyError, TrainingError
from rtvc.files import replacing
from rtvc.train import state as state_module
from rtvc.train.config import CheckpointConfig, LogConfig
from rtvc.train.loop import Trainer
from rtvc.train.stage import Samples
from rtvc.train.state import Checkpoints
from tests.rtvc.train.test_train_loop import assert_identical, everything, run, toy
from tests.support.train_toy import Toy


def test_a_bad_batch_is_skipped_and_counted(tmp_path: Path) -> None:
    trainer, outcome = run(tmp_path / "r", toy(poison=[4, 5, 20]))
    assert outcome.skipped == 3 and outcome.reason == "finished"
    for module in trainer.stage.modules.values():
        for name, tensor in module.state_dict().items():
            assert torch.isfinite(tensor.float()).all(), name
    net, _ = run(tmp_path / "s", toy(poison=[4]), max_steps=4)
    before = {k: v.clone() for k, v in net.stage.modules["net"].state_dict().items()}
    after, _ = run(tmp_path / "s", toy(poison=[4]), max_steps=1)
    assert_identical(before, dict(after.stage.modules["net"].state_dict()))


def test_too_many_bad_batches_stop_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="4 steps in a row"):
        run(tmp_path / "r", toy(poison=list(range(20, 60)), bad_steps=3))
    assert Checkpoints(tmp_path / "r").steps()[-1] == 20


def test_a_full_disk_costs_one_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, fails = state_module.write_bytes, {"step-00000020.pt", "step-00000030.json"}

    def full(path: Path, data: bytes) -> None:
        if path.name in fails:
            raise OSError(28, "No space left on device")
        write(path, data)

    monkeypatch.setattr(state_module, "write_bytes", full)
    config = toy(checkpoint=CheckpointConfig(every=10, keep=9))
    run(tmp_path / "r", config)
    assert Checkpoints(tmp_path / "r").steps() == [10, 40, 50, 60]
    fails.add("step-00000060.pt")
    with pytest.raises(TrainingError, match="free some space"):
        run(tmp_path / "last", config)
    fails.clear()
    run(tmp_path / "last", config)
    assert_identical(everything(tmp_path / "r"), everything(tmp_path / "last"))


def test_a_real_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    state_module.write_bytes(path, b"old")

    class Broken:
        def __len__(self) -> int:
            return 1

    with pytest.raises(TypeError):
        state_module.write_bytes(path, Broken())  # type: ignore[arg-type]
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["weights"]


def test_damaged_checkpoints_are_passed_over(tmp_path: Path) -> None:
    config = toy(steps=30)
    run(tmp_path / "r", config)
    checkpoints = Checkpoints(tmp_path / "r")
    assert checkpoints.steps() == [20, 30]
    newest = tmp_path / "r" / "checkpoints" / "step-00000030.pt"
    whole = newest.read_bytes()
    newest.write_bytes(whole[:-100])
    found = checkpoints.latest()
    assert found is not None and found[0] == 20 and "damaged" in found[2][0]
    run(tmp_path / "r", config)
    assert (
        newest.read_bytes() and checkpoints.latest() is not None and checkpoints.steps()[-1] == 30
    )
    for path in newest.parent.glob("*.pt"):
        path.write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="--fresh"):
        run(tmp_path / "r", config)


def test_a_save_clears_up_after_killed_ones(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "step-00000007.pt").write_bytes(b"its .json was never written")
    with replacing(folder / "step-00000008.pt") as unfinished:
        unfinished.touch()
    unfinished.write_bytes(b"half")  # what a save leaves that is killed in this moment
    Checkpoints(tmp_path).save(9, {"x": torch.ones(2)})
    assert sorted(path.name for path in folder.iterdir()) == [
        "step-00000009.json",
        "step-00000009.pt",
    ]


def test_other_models_are_refused_and_changes_are_told(tmp_path: Path) -> None:
    run(tmp_path / "r", toy(steps=10))
    with pytest.raises(TrainingError, match="other models"):
        run(tmp_path / "r", toy(steps=20, plain=True))
    heard = io.StringIO()
    config = toy(steps=12, seed=4)
    Trainer(Toy(config), config, tmp_path / "r", console=Console(file=heard, width=200)).fit()
    assert (
        "resuming at step 10" in heard.getvalue()
        and "changed since: seed = 4 (was 0)" in heard.getvalue()
    )


def test_a_picture_that_cannot_be_made_does_not_end_a_run(tmp_path: Path) -> None:
    class Blind(Toy):
        def sample(self, step: int) -> Samples:
            raise AudioError("no recording to show")

        def remarks(self) -> list[str]:
            return ["a.wav\tis gone"]

    config, heard = (
        toy(steps=10, log=LogConfig(every=5, sample_every=5, validate_every=5)),
        io.StringIO(),
    )
    outcome = Trainer(
        Blind(config), config, tmp_path / "r", console=Console(file=heard, width=200)
    ).fit()
    assert (
        outcome.reason == "finished"
        and "step 5: no samples: no recording to show" in heard.getvalue()
    )
    assert (tmp_path / "r" / "remarks.txt").read_text() == "a.wav\tis gone\n" * 2


def test_a_missing_tensorboard_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(DependencyError, match=r"rtvc-engine\[train\]"):
        run(tmp_path / "r", toy(log=LogConfig(tensorboard=True)))


def test_hostile_checkpoints_do_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, ("touch /nonexistent/x",)

    torch.save({"x": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="plain tensors"):
        state_module.load_tensors(tmp_path / "evil.pt")
