"""Training on the fused operators is the same training: the stream stage, switched on and off, on
one seed."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor
from torch.utils import _pytree as pytree

from rtvc.errors import ConfigError
from rtvc.kernels.toolchain.dispatch import use_operator
from rtvc.layers.dispatch import Dispatched
from rtvc.train.config import load_config
from rtvc.train.loop import Trainer
from rtvc.train.registry import stage_type
from tests.support.labelled_speech import make_labelled

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


@pytest.fixture
def float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs compute in float64, also where training asks for float32 by name.

    Eight steps multiply what is rounded: weights changed by 1e-12 change this run's last loss by
    8e-10, and weights changed by one rounding of float32, 6e-8, by up to 1e-3, differently on every
    processor. So curves can tell equal operators from nearly equal ones in float64 alone.
    """
    default = torch.get_default_dtype()
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(default)


SAME_CURVE = 1e-9
"""Relative. An operator that sums 4,096 terms in another order moves its result by at most
4,096 * 2^-53 = 5e-13 of the terms' size; times the run's gain of about 1,000, that is 5e-10."""


def trainer(config: Path, run: Path, *overrides: str) -> Trainer:
    kind = stage_type("stream")
    settings = load_config(kind.config_type, config, overrides)
    torch.manual_seed(settings.seed)
    made = Trainer(kind(settings), settings, run, console=Console(quiet=True))  # type: ignore[call-arg]
    draw, dtype = made.stage.batch, torch.get_default_dtype()

    def typed(leaf: object) -> object:
        floating = isinstance(leaf, Tensor) and leaf.is_floating_point()
        return leaf.to(dtype) if floating else leaf

    made.stage.batch = lambda index: pytree.tree_map(typed, draw(index))  # type: ignore[method-assign]
    for module in made.stage.modules.values():
        module.to(dtype)
    return made


def implementations(made: Trainer) -> set[str]:
    """How the trained layers run."""
    parts = [part for module in made.stage.modules.values() for part in module.modules()]
    return {part.implementation for part in parts if isinstance(part, Dispatched)}


def losses(run: Path) -> list[float]:
    return [json.loads(line)["stft"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def curve(config: Path, run: Path, *overrides: str) -> list[float]:
    made = trainer(config, run, *overrides)
    assert implementations(made) == {"fused" if "fused=true" in overrides else "reference"}
    made.fit()
    return losses(run)


def test_loss_curves_are_equal_on_a_seed(config: Path, tmp_path: Path, float64: None) -> None:
    """The steps are taken by the gradients, so equal curves mean equal gradients as well."""
    plain = curve(config, tmp_path / "plain", "fused=false")
    fused = curve(config, tmp_path / "fused", "fused=true")
    assert len(plain) == 8 and fused == pytest.approx(plain, rel=SAME_CURVE)
    still = curve(config, tmp_path / "still", "fused=false", "optimizer.lr=1e-12")
    assert sum(plain) < 0.998 * sum(still), "the run learns: what is equal are curves of training"


@pytest.mark.parametrize(("precision", "rounding"), [("float32", 2**-20), ("bfloat16", 2**-8)])
def test_every_batch_costs_the_same_in(
    config: Path, tmp_path: Path, precision: str, rounding: float
) -> None:
    """At weights that stay as they are, so that nothing multiplies what is rounded.

    A loss is a mean over 10,000 magnitudes, whose roundings are independent and average out: what
    is left is less than one rounding of bfloat16 (2^-8), or a few sums of float32 (8 * 2^-23).
    """
    still = [
        curve(
            config,
            tmp_path / fused,
            f"fused={fused}",
            f"precision={precision}",
            "optimizer.lr=1e-12",
        )
        for fused in ("false", "true")
    ]
    assert len(still[0]) == 8 and still[1] == pytest.approx(still[0], rel=rounding)
    learned = curve(config, tmp_path / "learned", "fused=true", f"precision={precision}")
    assert sum(learned) < sum(still[1]), "the fused run learns"


def test_a_cpu_trains_on_plain_torch_unless_told_otherwise(config: Path, tmp_path: Path) -> None:
    assert implementations(trainer(config, tmp_path / "auto")) == {"auto"}
    assert not use_operator(torch.zeros(1), "auto")
    assert implementations(trainer(config, tmp_path / "on", "fused=true")) == {"fused"}
    with pytest.raises(ConfigError, match="fused"):
        trainer(config, tmp_path / "odd", "fused=sometimes")


def test_a_run_goes_on_with_the_switch_turned(config: Path, tmp_path: Path, float64: None) -> None:
    """Weights and optimizer know nothing of it: four steps with and four without are one run."""
    for name, switches in (("one", ("false", "false")), ("two", ("true", "false"))):
        for switch in switches:
            trainer(config, tmp_path / name, f"fused={switch}").fit(max_steps=4)
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(two) == 8 and two == pytest.approx(one, rel=SAME_CURVE)
