"""Metrics that only some frames have: what has no label weighs nothing, and what nothing has a
label for is not measured as 0."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rtvc.benchmarks.ablations import Question, answer
from rtvc.data.utterance import UNKNOWN, save_utterance
from rtvc.errors import TrainingError
from rtvc.train.losses.pitch_losses import pitch_losses
from rtvc.train.losses.shares import measured, share
from rtvc.train.monitor import Means
from rtvc.train.parallel import World
from rtvc.train.streaming.units import Units, same_speaker_nearest
from tests.rtvc.train.test_train_units import trainer
from tests.support.unit_speech import PITCH, utterance

ALONE = World(0, 1, torch.device("cpu"))


def labelled(folder: Path, silent: tuple[str, ...], count: int = 2) -> Path:
    """Speech with units; that of some speakers has no phonemes."""
    folder.mkdir()
    for number in range(count):
        for speaker in PITCH:
            made = utterance(speaker, number)
            if speaker in silent:
                nothing = np.full_like(made.phonemes, UNKNOWN)
                made = dataclasses.replace(made, phonemes=nothing)
            save_utterance(folder / f"{speaker}_{number}.npz", made)
    return folder


def metrics(run: Path) -> dict[str, float]:
    """The last value of everything that a run measured."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {name: value for line in lines for name, value in line.items()}


def test_a_share_is_that_of_the_counted() -> None:
    right = torch.tensor([[True, False, True, True]])
    counted = torch.tensor([[True, True, False, True]])
    assert share(right, counted).tolist() == [2, 3]
    values = {
        "loss": torch.tensor(0.5),
        "leak": torch.tensor(1.0),
        "metric/right": share(right, counted),
        "metric/none": share(right, torch.zeros_like(counted)),
    }
    assert measured(values, ["leak"]) == {"loss": 0.5, "right": pytest.approx(2 / 3)}


def test_means_weigh_steps_and_ranks_by_what_they_counted() -> None:
    found = Means()
    for scalar, pair in ((1.0, [3.0, 4.0]), (2.0, [0.0, 0.0]), (6.0, [1.0, 4.0])):
        counts = {"metric/right": torch.tensor(pair), "metric/none": torch.zeros(2)}
        found.add({"loss": torch.tensor(scalar)} | counts)
    assert found.take(ALONE) == {"loss": 3.0, "metric/right": 0.5}

    class Second(World):
        """The first of two ranks; the other counted 8 frames, all of them right."""

        def mean(self, values: Tensor) -> Tensor:
            """See `World.mean`."""
            return (values + torch.tensor([[3.0, 1.0], [8.0, 8.0]])) / 2

    found.add({"loss": torch.tensor(1.0), "metric/right": torch.tensor([0.0, 0.0])})
    assert found.take(Second(0, 2, torch.device("cpu"))) == {"loss": 2.0, "metric/right": 1.0}


def test_held_out_batches_without_phonemes_weigh_nothing(tmp_path: Path) -> None:
    """The share and the cross entropy are those of all labelled frames together, whatever batches
    they come in."""
    folder = labelled(tmp_path / "units", ("anna", "carl"), 3)
    more = ("data.held_out=7", "data.batch=1", "copies=0")
    made = trainer("units", folder, tmp_path / "run", 4, 1e-2, *more)
    made.begin(resume=False)
    stage = made.stage
    assert isinstance(stage, Units)
    stage.encoder.eval()
    spoken = [bool((row["phonemes"] != UNKNOWN).any()) for row, _ in stage.held_out()]
    assert any(spoken) and not all(spoken), "the test needs both kinds of speakers held out"
    right, entropy, count, settings = 0.0, 0.0, 0, stage.encoder.lookaheads
    with torch.no_grad():
        found = stage.held_out_losses("units", 0)
        for batch, _ in stage.held_out_batches():
            labels = batch["phonemes"][:, stage.config.warm :]
            known = labels != UNKNOWN
            for ahead, content in zip(
                settings, stage.encoder.contents(stage.mel(batch["source"]), settings), strict=True
            ):
                logits = stage.heads(content)[-1][..., stage.config.warm :].mT[known]
                right += float((logits.argmax(-1) == labels[known]).sum()) * (ahead == 1)
                entropy += float(cross_entropy(logits, labels[known], reduction="sum"))
            count += int(known.sum())
    assert found["phonemes_right_1"] == pytest.approx(right / count, rel=1e-6)
    assert found["phonemes"] == pytest.approx(entropy / count / len(settings), rel=1e-5)
    one = trainer("units", folder, tmp_path / "again", 4, 1e-2, "data.held_out=7", "copies=0")
    one.stage.modules["encoder"].load_state_dict(stage.encoder.state_dict())
    one.stage.modules["heads"].load_state_dict(stage.heads.state_dict())
    assert isinstance(one.stage, Units)
    one.stage.encoder.eval()
    with torch.no_grad():
        together = one.stage.held_out_losses("units", 0)
    assert together == pytest.approx(found, rel=1e-5), "the size of the batches matters"


def test_what_nothing_has_a_label_for_is_not_measured(tmp_path: Path) -> None:
    folder = labelled(tmp_path / "units", tuple(PITCH))
    trainer("units", folder, tmp_path / "run", 10, 1e-2).fit()
    found = metrics(tmp_path / "run")
    assert found["valid/units_right_1"] > 0 and "metric/units_right_1" in found
    assert not [name for name in found if "phonemes_right" in name or name == "valid/phonemes"]


def test_a_question_that_was_not_measured_is_not_answered(tmp_path: Path) -> None:
    folder = labelled(tmp_path / "units", tuple(PITCH))
    small = [
        *("grow=false", "model.hidden=12", "model.dilations=[1]", "model.content=4"),
        *("data.batch=2", "data.frames=32", "data.held_out=2", "workers=0", "device=cpu"),
        *("precision=float32", f"data.labelled={json.dumps([str(folder)])}"),
    ]
    question = Question(
        title="t", stage="units", steps=5, measures=["phonemes_right_1"], answers={"a": [], "b": []}
    )
    with pytest.raises(TrainingError, match="held-out measurements of phonemes_right_1"):
        answer(question, "a", tmp_path / "run", 0, small)


def test_unvoiced_speech_has_no_pitch_to_be_right_about() -> None:
    centres = torch.linspace(4, 6, 5)
    nothing = torch.zeros(2, 3)
    losses = pitch_losses(centres, torch.zeros(2, 3, 6), nothing + 5, nothing, nothing + 1)
    found = measured(losses)
    assert "within_a_semitone" not in found and found["voicing_right"] == 1


def test_speakers_with_one_utterance_each_cannot_be_found_again() -> None:
    assert math.isnan(same_speaker_nearest(torch.eye(3), ["a", "b", "c"]))
