"""Checkpoints that carry more than weights, are hostile, truncated or of something else."""

import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from rtvc.errors import CheckpointError
from rtvc.models.checkpoints import load_components
from rtvc.models.styletts_vc.mel_encoder import MelEncoder
from tests.support.checkpoints import save_components
from tests.support.states import same, states


def test_optimiser_and_scheduler_state_of_the_authors_is_read_over(tmp_path: Path) -> None:
    """Their files pickle a bound method of OneCycleLR, which drags the scheduler and its optimiser
    along."""
    module = MelEncoder(channels=32)
    optimizer = torch.optim.AdamW(module.parameters())
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, 10)
    buffer = io.BytesIO()
    torch.save(
        {
            "net": module.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scheduler": {"anneal": Bound(scheduler)},
        },
        buffer,
    )
    buffer.seek(0)
    with pytest.raises(pickle.UnpicklingError, match="getattr"):
        torch.load(buffer, weights_only=True)
    (tmp_path / "bst.t7").write_bytes(buffer.getvalue())
    assert same(load_components(tmp_path / "bst.t7")["mel_encoder"], module)
    with pytest.raises(pickle.UnpicklingError, match="getattr"):
        torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)


class Bound:
    """Pickles as a bound method of a scheduler did when the authors trained."""

    def __init__(self, scheduler: torch.optim.lr_scheduler.OneCycleLR) -> None:
        self.scheduler = scheduler

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (OldScheduler(self.scheduler.optimizer), "_annealing_cos")


class OldScheduler:
    """Pickles as a `OneCycleLR` object with its optimiser."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def __reduce__(self) -> tuple[Any, ...]:
        return (
            torch.optim.lr_scheduler.OneCycleLR,
            (),
            {"optimizer": self.optimizer, "last_epoch": 3},
        )


class Runs:
    """Runs code when unpickled in the ordinary way."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


@pytest.mark.parametrize("writer", ["torch", "legacy", "pickle"])
@pytest.mark.parametrize("way", ["system", "eval", "import", "getattr"])
def test_a_hostile_file_runs_nothing_and_says_so(writer: str, way: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    evil = {
        "system": Runs(os.system, f"touch {trace}"),
        "eval": Runs(eval, f"open({str(trace)!r}, 'w')"),
        "import": Runs(__import__, "antigravity"),
        "getattr": Runs(getattr, Runs(__import__, "os"), "system"),
    }[way]
    payload = {"net": states({"mel_encoder": MelEncoder(channels=32)}), "optimizer": evil}
    path = tmp_path / "evil.pth"
    if writer == "pickle":
        path.write_bytes(pickle.dumps(payload))
    else:
        torch.save(payload, path, _use_new_zipfile_serialization=writer == "torch")
    with pytest.raises(
        CheckpointError, match=r"could run code, and was not read|truncated or no checkpoint"
    ) as caught:
        load_components(path)
    assert not trace.exists() and "\n" not in str(caught.value)
    if writer != "pickle":
        assert "could run code" in str(caught.value)


def test_truncated_and_foreign_files_give_one_clear_error(tmp_path: Path) -> None:
    whole, ours = tmp_path / "whole.pth", tmp_path / "whole.safetensors"
    save_components(whole, {"mel_encoder": MelEncoder(channels=32)})
    save_components(ours, {"mel_encoder": MelEncoder(channels=32)})
    contents = {
        "empty.pth": b"",
        "page.pth": b"<html>404</html>",
        "noise.pth": bytes(range(256)) * 9,
        "empty.safetensors": b"",
    }
    contents |= {
        f"cut{share}.pth": whole.read_bytes()[: whole.stat().st_size * share // 100]
        for share in (1, 30, 90, 99)
    }
    contents |= {
        f"cut{share}.safetensors": ours.read_bytes()[: ours.stat().st_size * share // 100]
        for share in (1, 30, 99)
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match="truncated or no checkpoint") as caught:
            load_components(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    for missing in (tmp_path / "absent.pth", tmp_path):
        with pytest.raises(CheckpointError, match="is not there or not a file"):
            load_components(missing)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ([1, 2], "holds no weights"),
        ({"epoch": 3}, "holds no weights"),
        ({"a": torch.zeros(1)}, "holds no weights"),
        ({"net": {"epoch": 1}}, "holds no weights"),
        (
            {"model_state_dict": {"a.b": torch.zeros(1)}},
            "holds model_state_dict, none of them a component",
        ),
    ],
)
def test_weights_of_something_else(payload: object, message: str, tmp_path: Path) -> None:
    torch.save(payload, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=message):
        load_components(tmp_path / "x.pth")
