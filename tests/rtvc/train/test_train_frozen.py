"""What a stage does not train stays as it was, to the last buffer, and a batch that is not finite
changes nothing at all: the second stage cannot drift into NaN."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rtvc.models.styletts2.discriminators import MultiPeriodDiscriminator, PeriodDiscriminator
from rtvc.train.loop import Trainer
from tests.support.train_runs import begin
from tests.support.train_speech import PROSODY, make_corpus, tiny_config

STAGES = {
    "stage2": (),
    "stage2_styletts2": ("diffusion_from=1", "joint_from=2", "longest_piece=90"),
    "finetune": ("data.seconds=1.0",),
}
"""The stages that stand on others, and settings that bring all of their parts into play."""


def small_judge() -> MultiPeriodDiscriminator:
    judge = MultiPeriodDiscriminator(())
    judge.discriminators.append(PeriodDiscriminator(3, (4, 4)))
    return judge


def started(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    """A stage at a few numbers a layer, before its first step."""
    for judge in ("MultiPeriodDiscriminator", "MultiResolutionDiscriminator"):
        monkeypatch.setattr(f"rtvc.train.stages.stage2_styletts2.{judge}", small_judge)
    config = tiny_config(folder, make_corpus(folder), steps=4)
    if name == "stage2_styletts2":
        config.write_text(config.read_text() + PROSODY)
    return begin(name, config, folder / "run", *STAGES[name])


def kept(trainer: Trainer, names: set[str]) -> dict[str, Tensor]:
    """Copies of every parameter and buffer of some modules, those that no file keeps included."""
    return {
        f"{name}.{part}": tensor.detach().clone()
        for name in sorted(names)
        for module in [trainer.stage.modules[name]]
        for part, tensor in [*module.named_parameters(), *module.named_buffers()]
    }


@pytest.mark.parametrize("name", STAGES)
def test_frozen_modules_are_in_evaluation_mode_and_keep_their_buffers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = started(name, tmp_path, monkeypatch)
    trained = {module for modules in trainer.stage.phases.values() for module in modules}
    still = set(trainer.stage.modules) - trained - {"deviation"}  # a running mean of its own
    assert "pitch_extractor" in still
    assert any(part.endswith("running_mean") for part in kept(trainer, still)), "it has batch norms"
    before, losses, looked = kept(trainer, still), trainer.stage.losses, set[str]()

    def watched(phase: str, batch: dict[str, Any], step: int) -> dict[str, Tensor]:
        found = losses(phase, batch, step)  # stages may set modes inside
        resting = still | set(trainer.stage.frozen(phase, step))
        for module in resting:
            for path, layer in trainer.stage.modules[module].named_modules():
                # cuDNN's LSTMs must be, and are the same either way; spectral norms would move on.
                if not isinstance(layer, nn.LSTM):
                    assert not layer.training, f"{module}.{path} is in training mode"
                    looked.add(module)
        return found

    monkeypatch.setattr(trainer.stage, "losses", watched)
    assert trainer.fit().skipped == 0
    assert "pitch_extractor" in looked
    after = kept(trainer, still)
    assert [part for part in before if not torch.equal(before[part], after[part])] == []


@pytest.mark.parametrize("name", STAGES)
def test_a_batch_that_is_not_finite_changes_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = started(name, tmp_path, monkeypatch)
    batch = trainer.stage.batch

    def poisoned(index: int) -> dict[str, Any]:
        found = batch(index)
        for part in ("mel", "wave"):
            if part in found and torch.is_tensor(found[part]):
                found[part] = torch.full_like(found[part], float("nan"))
        return found

    everything = set(trainer.stage.modules)
    trainer.begin(resume=False)
    values, fine = trainer.stepper.advance([batch(0)], 2)
    assert fine and all(torch.isfinite(value).all() for value in values.values())
    before = kept(trainer, everything)
    _, fine = trainer.stepper.advance([poisoned(1)], 3)
    assert not fine and trainer.stepper.skipped == 1
    after = kept(trainer, everything)
    assert [part for part in before if not torch.equal(before[part], after[part])] == []
    values, fine = trainer.stepper.advance([batch(2)], 3)
    assert fine and all(torch.isfinite(value).all() for value in values.values())
