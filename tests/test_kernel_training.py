"""Training on the fused operators is the same training: the stream stage, switched on and off, on one seed."""

import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from rtvc.errors import ConfigError
from rtvc.models.fused import FusedAdaBlock, FusedIstft
from rtvc.train.config import load_config
from rtvc.train.loop import Trainer
from rtvc.train.stages import stage_type
from tests.labelled_speech import make_labelled

CONFIG = """
steps = 8
device = "cpu"
labels_every = 1
workers = 0
ema = 0.5
[log]
every = 1
sample_every = 0
validate_every = 0
tensorboard = false
[optimizer]
lr = 1e-3
eps = 1.0
schedule = "constant"
[data]
labelled = ["{folder}"]
batch = 2
frames = 32
held_out = 2
[weights]
embedding = 0.0
consistency = 0.0
[model]
content_hidden = 16
content_dilations = [1, 2]
pitch_hidden = 16
pitch_dilations = [1]
decoder_hidden = 16
decoder_dilations = [1, 2]
acoustic_hidden = 8
prosodic_hidden = 8
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_labelled(tmp_path_factory.mktemp("labelled"))
    (folder / "config.toml").write_text(CONFIG.format(folder=folder))
    return folder / "config.toml"


def trainer(config: Path, run: Path, *overrides: str) -> Trainer:
    kind = stage_type("stream")
    settings = load_config(kind.config_type, config, overrides)
    torch.manual_seed(settings.seed)
    return Trainer(kind(settings), settings, run, console=Console(quiet=True))  # type: ignore[call-arg]


def fused_parts(made: Trainer) -> set[type]:
    return {type(part) for module in made.stage.modules.values() for part in module.modules()} & {FusedAdaBlock, FusedIstft}


def curve(config: Path, run: Path, *overrides: str) -> list[float]:
    made = trainer(config, run, *overrides)
    assert bool(fused_parts(made)) == ("fused=true" in overrides)
    made.fit()
    return [json.loads(line)["stft"] for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("precision", "rounding"), [("float32", 1e-5), ("bfloat16", 2e-3)])
def test_loss_curves_are_equal_on_a_seed(config: Path, tmp_path: Path, precision: str, rounding: float) -> None:
    """Adam's `eps` is large here: with a small one it turns the rounding of gradients near zero into whole steps."""
    plain = curve(config, tmp_path / "plain", "fused=false", f"precision={precision}")
    assert len(plain) == 8 and curve(config, tmp_path / "fused", "fused=true", f"precision={precision}") == pytest.approx(
        plain, rel=rounding
    )
    still = curve(config, tmp_path / "still", "fused=false", f"precision={precision}", "optimizer.lr=1e-12")
    assert plain[-1] < 0.99 * still[-1], "the run learns: what is equal are curves of training"


def test_a_cpu_trains_on_plain_torch_unless_told_otherwise(config: Path, tmp_path: Path) -> None:
    assert not fused_parts(trainer(config, tmp_path / "auto"))
    assert fused_parts(trainer(config, tmp_path / "on", "fused=true")) == {FusedAdaBlock, FusedIstft}
    with pytest.raises(ConfigError, match="fused"):
        trainer(config, tmp_path / "odd", "fused=sometimes")


def test_a_run_goes_on_with_the_switch_turned(config: Path, tmp_path: Path) -> None:
    """Weights and optimizer know nothing of it: four steps with and four without are the curve of one run."""
    for name, switches in (("one", ("false", "false")), ("two", ("true", "false"))):
        for switch in switches:
            trainer(config, tmp_path / name, f"fused={switch}").fit(max_steps=4)
    one, two = ([json.loads(line)["stft"] for line in (tmp_path / n / "metrics.jsonl").read_text().splitlines()] for n in ("one", "two"))
    assert len(two) == 8 and two == pytest.approx(one, rel=1e-5)
