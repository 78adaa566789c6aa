"""Training configurations: files, overrides, and errors that name the nearest key; learning-rate
schedules."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from rtvc.errors import ConfigError
from rtvc.train.config import OptimizerConfig, load_config
from rtvc.train.registry import STAGES, default_config, stage_type
from rtvc.train.schedule import learning_rate
from tests.support.train_toy import ToyConfig


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "c.toml"
    path.write_text(text)
    return path


def test_files_and_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, "seed = 3\n[optimizer]\nlr = 1e-3\n")
    config = load_config(
        ToyConfig,
        path,
        ["optimizer.betas=[0.5, 0.9]", "device=cpu", "log.every=7", "weights.fit=2"],
    )
    assert config.seed == 3 and config.optimizer.lr == 1e-3 and config.optimizer.betas == (0.5, 0.9)
    assert config.device == "cpu" and config.log.every == 7 and config.weights.fit == 2.0


@pytest.mark.parametrize(
    ("text", "overrides", "says"),
    [
        ("sed = 1", [], "unknown key 'sed'; did you mean 'seed'"),
        ("[optimizer]\nlearn = 1", [], "unknown key 'optimizer.learn'"),
        ("[optimizer]\nwarm_up = 1", [], "did you mean 'warmup'"),
        ("[[init]]\npath = 'x'\nmodule = {}", [], "did you mean 'modules'"),
        ("[optimzer]\nlr = 1.0", [], "did you mean 'optimizer'"),
        ("", ["checkpoint.evry=1"], "did you mean 'every'"),
        ("", ["optimizer.lr=fast"], "optimizer.lr = 'fast'"),
        ("", ["optimizer.lr=-1"], "greater than 0"),
        ("", ["seed"], "key=value"),
        ("seed = 1", ["seed.x=1"], "seed is a value"),
        ("seed = ", [], "is not TOML"),
        ("[[init]]\n", [], "init.0.path is missing"),
    ],
)
def test_mistakes_are_explained(tmp_path: Path, text: str, overrides: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_config(ToyConfig, write(tmp_path, text), overrides)


@pytest.mark.parametrize("stage", STAGES)
def test_an_override_changes_one_key_alone(stage: str) -> None:
    """Whatever a stage's recipe says of a section, and whatever its class would say."""
    path, kind = default_config(stage), stage_type(stage).config_type
    before = load_config(kind, path)
    for section, fields in before:
        if not isinstance(fields, BaseModel):
            continue
        for key, value in fields:
            if type(value) in (int, float):
                after = load_config(kind, path, [f"{section}.{key}={value}"])
                assert after == before, (section, key)


def test_a_missing_file_and_stage_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(ToyConfig, tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="did you mean 'stage1'"):
        stage_type("stag1")
    assert "stream" in STAGES


def test_schedules() -> None:
    cosine = OptimizerConfig(lr=1.0, schedule="cosine", warmup=10, final=0.1)
    assert learning_rate(cosine, 0, 100) == pytest.approx(0.1)
    assert learning_rate(cosine, 9, 100) == learning_rate(cosine, 10, 100) == 1.0
    assert learning_rate(cosine, 99, 100) == pytest.approx(0.1)
    constant = OptimizerConfig(lr=2.0, schedule="constant", warmup=4)
    assert [learning_rate(constant, s, 9) for s in (0, 3, 8)] == [0.5, 2.0, 2.0]
    cycle = OptimizerConfig(lr=1.0, schedule="onecycle", pct_start=0.25, div_factor=10, final=0.0)
    rates = [learning_rate(cycle, s, 101) for s in range(101)]
    assert (
        rates[0] == pytest.approx(0.1)
        and max(rates) == rates[25] == 1.0
        and rates[-1] == pytest.approx(0.0)
    )
    flat = OptimizerConfig(lr=1.0, schedule="onecycle", pct_start=0.0, div_factor=1, final=1.0)
    assert {learning_rate(flat, s, 50) for s in range(50)} == {1.0}
