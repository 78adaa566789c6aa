"""The training loop: learning, resuming identically, surviving NaN, full disks and kill -9, several
processes."""

import json
import multiprocessing
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from rtvc.errors import CheckpointError, ConfigError, TrainingError
from rtvc.train.config import CheckpointConfig, InitConfig, LogConfig, OptimizerConfig
from rtvc.train.loop import Outcome, Trainer
from rtvc.train.state import Checkpoints, load_weights
from tests.support.train_toy import Toy, ToyConfig, run_toy

QUIET = Console(quiet=True)


def toy(**settings: Any) -> ToyConfig:
    base: dict[str, Any] = {
        "steps": 60,
        "device": "cpu",
        "optimizer": OptimizerConfig(lr=1e-2, schedule="cosine", warmup=5),
        "log": LogConfig(every=10, sample_every=0, validate_every=0, tensorboard=False),
        "checkpoint": CheckpointConfig(every=10, keep=2),
        "ema": 0.9,
    }
    return ToyConfig(**{**base, **settings})


def run(folder: Path, config: ToyConfig, **how: Any) -> tuple[Trainer, Outcome]:
    torch.manual_seed(config.seed)
    trainer = Trainer(Toy(config), config, folder, console=QUIET)
    return trainer, trainer.fit(**how)


def everything(folder: Path) -> dict[str, Any]:
    found = Checkpoints(folder).latest()
    assert found is not None
    state = found[1]
    return {
        key: state[key]
        for key in ("step", "skipped", "bad_in_row", "modules", "optimizers", "average")
    }


def assert_identical(a: Any, b: Any, path: str = "") -> None:
    assert type(a) is type(b), path
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), f"{path} differs by {(a.double() - b.double()).abs().max()}"
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_identical(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), path
        for i, (left, right) in enumerate(zip(a, b, strict=True)):
            assert_identical(left, right, f"{path}.{i}")
    else:
        assert a == b, path


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_learns_and_reports(tmp_path: Path) -> None:
    config = toy(
        steps=200,
        plain=True,
        log=LogConfig(every=10, sample_every=50, validate_every=50, tensorboard=True),
    )
    _, outcome = run(tmp_path / "r", config)
    lines = metrics(tmp_path / "r")
    fits = [line["fit"] for line in lines if "fit" in line]
    valid = [line["valid/fit"] for line in lines if "valid/fit" in line]
    assert outcome.reason == "finished" and outcome.step == 200
    assert fits[-1] < 0.3 * fits[0] and valid[-1] < 0.5 * valid[0]
    assert (
        lines[0]["lr/generator"] == pytest.approx(1e-2, rel=0.01) and lines[-2]["run/skipped"] == 0
    )
    assert "metric/size" in lines[0] and "norm/discriminator" in lines[0]
    assert any((tmp_path / "r" / "tensorboard").iterdir())
    weights = load_weights(tmp_path / "r")
    assert set(weights) == {"net"}, "only averaged modules are exported"


@pytest.mark.parametrize("workers", [0, 2])
def test_parts_equal_the_whole(tmp_path: Path, workers: int) -> None:
    config = toy(steps=40, accumulate=2, workers=workers)
    run(tmp_path / "whole", config)
    for _ in range(3):
        _, part = run(tmp_path / "parts", config, max_steps=17)
    assert part.reason == "finished"
    assert_identical(everything(tmp_path / "whole"), everything(tmp_path / "parts"))


def test_minutes_end_a_run_and_fresh_sets_it_aside(tmp_path: Path) -> None:
    _, outcome = run(tmp_path / "r", toy(), max_minutes=0.0)
    assert outcome.reason == "max_minutes" and 1 <= outcome.step < 60
    _, again = run(tmp_path / "r", toy(), resume=False, max_steps=2)
    assert again.step == 2 and (tmp_path / "r.old1").is_dir()


def child(target: Any, *arguments: Any) -> Any:
    """A started process that imported torch once for all tests of this file; forked clean, so it
    can be killed at any moment."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.train_toy"])
    process = context.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def last_step(folder: Path) -> int:
    lines = (
        (folder / "metrics.jsonl").read_text().splitlines()
        if (folder / "metrics.jsonl").exists()
        else []
    )
    return len(lines) * 5


def wait_for(condition: Any, process: Any) -> None:
    deadline = time.monotonic() + 60
    while process.is_alive() and not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


SLOW_TOML = """
device = "cpu"
ema = 0.9
slow = 0.004
[checkpoint]
every = 5
[log]
every = 5
tensorboard = false
sample_every = 0
validate_every = 0
[optimizer]
lr = 1e-2
schedule = "constant"
"""


def test_kill_at_any_moment_continues_identically(tmp_path: Path) -> None:
    config = tmp_path / "toy.toml"
    config.write_text(SLOW_TOML)
    whole = child(run_toy, str(config), str(tmp_path / "whole"), "slow=0", "steps=120")
    whole.join(60)
    killed = 0
    for moment in (5, 30, 35, 75):
        process = child(run_toy, str(config), str(tmp_path / "killed"), "steps=120")
        wait_for(lambda moment=moment: last_step(tmp_path / "killed") >= moment, process)
        killed += process.is_alive()
        process.kill()
        process.join()
    assert killed >= 3
    process = child(run_toy, str(config), str(tmp_path / "killed"), "steps=120")
    process.join(60)
    assert whole.exitcode == process.exitcode == 0
    assert_identical(everything(tmp_path / "whole"), everything(tmp_path / "killed"))
    steps = [line["step"] for line in metrics(tmp_path / "killed")]
    assert steps == list(range(5, 125, 5))


def test_a_polite_signal_leaves_a_checkpoint(tmp_path: Path) -> None:
    config = tmp_path / "toy.toml"
    config.write_text(SLOW_TOML.replace("every = 5", "every = 100000", 1))
    process = child(run_toy, str(config), str(tmp_path / "r"), "steps=100000")
    wait_for(lambda: last_step(tmp_path / "r") >= 10, process)
    os.kill(process.pid, signal.SIGTERM)
    process.join(120)
    assert process.exitcode == 0
    assert Checkpoints(tmp_path / "r").steps() and (tmp_path / "r" / "weights.safetensors").exists()


def ranked(rank: int, port: int, *arguments: str) -> None:
    """One process with the environment that torchrun gives it."""
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    run_toy(*arguments)


def test_two_processes_equal_one_with_accumulation(tmp_path: Path) -> None:
    """Gradients averaged over two ranks are those over two batches; resuming keeps both ranks
    together."""
    config = tmp_path / "toy.toml"
    config.write_text(SLOW_TOML)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    how = (str(config), str(tmp_path / "two"), "plain=true", "poison=[5]")
    for steps in (4, 8):
        pair = [child(ranked, rank, port, *how, f"steps={steps}") for rank in range(2)]
        for process in pair:
            process.join(60)
        assert [process.exitcode for process in pair] == [0, 0]
    run_toy(
        str(config), str(tmp_path / "one"), "steps=8", "accumulate=2", "plain=true", "poison=[5]"
    )
    one, two = everything(tmp_path / "one"), everything(tmp_path / "two")
    assert one["skipped"] == two["skipped"] == 1, "a bad batch of one rank is skipped by all"
    for name, tensor in one["modules"]["net"].items():
        assert torch.allclose(tensor, two["modules"]["net"][name], atol=1e-6), name


def test_init_takes_averaged_weights(tmp_path: Path) -> None:
    first, _ = run(tmp_path / "a", toy())
    config = toy(init=[InitConfig(path=tmp_path / "a", modules={"net": "net"})])
    second = Trainer(Toy(config), config, tmp_path / "b", console=QUIET)
    second.begin(resume=False)
    assert torch.equal(
        second.stage.modules["net"].get_parameter("0.weight"), first.average.shadow["net.0.weight"]
    )
    (tmp_path / "a" / "weights.safetensors").unlink()
    assert torch.equal(
        load_weights(tmp_path / "a")["net"]["0.weight"], first.average.shadow["net.0.weight"]
    )
    for bad in ({"nett": "net"}, {"net": "nett"}, {"critic": "net"}):
        config = toy(init=[InitConfig(path=tmp_path / "a", modules=bad)])
        with pytest.raises(CheckpointError, match="net"):
            Trainer(Toy(config), config, tmp_path / "c", console=QUIET).begin(resume=False)


def test_another_stages_run_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "r", toy(steps=5))

    class Other(Toy):
        pass

    with pytest.raises(TrainingError, match="run of Toy"):
        Trainer(Other(toy()), toy(), tmp_path / "r", console=QUIET).fit()


def test_mistakes_in_phases_and_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'generator'"):
        run(tmp_path, toy(optimizers={"generater": {"lr": 1.0}}))
    with pytest.raises(ConfigError, match="unknown key 'lrr'"):
        run(tmp_path, toy(optimizers={"generator": {"lrr": 1.0}}))
    with pytest.raises(ConfigError, match="did you mean 'critic'"):
        run(tmp_path, toy(optimizer=OptimizerConfig(lr_scale={"critics": 1.0})))

    class Unweighted(Toy):
        def losses(self, phase: str, batch: Any, step: int) -> dict[str, torch.Tensor]:
            return {f"{name}t": value for name, value in super().losses(phase, batch, step).items()}

    with pytest.raises(ConfigError, match="did you mean 'tell'"):
        Trainer(Unweighted(toy()), toy(), tmp_path, console=QUIET).fit()


def test_a_phase_may_be_run_several_times_in_each_step(tmp_path: Path) -> None:
    asked = []

    class Counting(Toy):
        def losses(self, phase: str, batch: Any, step: int) -> dict[str, torch.Tensor]:
            asked.append((step, phase))
            return super().losses(phase, batch, step)

    config = toy(steps=2, optimizers={"discriminator": {"updates": 3}})
    Trainer(Counting(config), config, tmp_path, console=QUIET).fit()
    assert asked == [
        (step, phase) for step in (0, 1) for phase in [*["discriminator"] * 3, "generator"]
    ]


def test_bfloat16_learns_and_skipped_phases_do_nothing(tmp_path: Path) -> None:
    class Late(Toy):
        def losses(self, phase: str, batch: Any, step: int) -> dict[str, torch.Tensor]:
            return (
                {} if phase == "discriminator" and step < 20 else super().losses(phase, batch, step)
            )

    config = toy(precision="bfloat16", steps=20)
    torch.manual_seed(0)
    stage = Late(config)
    before = stage.modules["critic"].state_dict()["0.weight"].clone()
    Trainer(stage, config, tmp_path / "r", console=QUIET).fit()
    assert torch.equal(before, stage.modules["critic"].state_dict()["0.weight"])
    fits = [line["fit"] for line in metrics(tmp_path / "r")]
    assert fits[-1] < fits[0]
