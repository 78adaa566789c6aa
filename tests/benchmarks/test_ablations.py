"""Ablations: every answer on the same data and steps, the best first, a second seed beside the
first."""

import json
from pathlib import Path

import pytest

from rtvc.benchmarks import ablations
from rtvc.errors import ConfigError
from tests.support.unit_speech import make_unit_speech

PLAN = """
[window]
title = "Which window"
stage = "units"
steps = 4
measures = ["units", "units_right_1"]
higher_is_better = false
base = ["grow=false", "model.hidden=12", "model.dilations=[1]", "model.content=4",
  "data.batch=2", "data.frames=32", "workers=0"]
[window.answers]
"long" = ["model.fall=600"]
"short" = ["model.fall=240"]
"""


def test_a_question_is_answered(tmp_path: Path) -> None:
    folder = make_unit_speech(tmp_path / "units", 2)
    plan, results, page = (
        tmp_path / "plan.toml",
        tmp_path / "results.json",
        tmp_path / "docs" / "page.md",
    )
    plan.write_text(PLAN)
    more = ["data.held_out=2", "device=cpu", "precision=float32"]
    for seed in (0, 1):
        ablations.main(
            None if seed == 0 else ["window"],
            [folder],
            tmp_path / "runs",
            seed,
            more,
            plan,
            results,
            page,
        )
    found = json.loads(results.read_text())["window"]
    assert [(entry["answer"], entry["seed"], entry["steps"]) for entry in found] == [
        ("long", 0, 4), ("short", 0, 4), ("long", 1, 4), ("short", 1, 4),
    ]  # fmt: skip
    rows = [
        line for line in page.read_text().splitlines() if line.startswith(("| long", "| short"))
    ]
    values = [float(row.split("|")[3]) for row in rows]
    assert len(values) == 4 and values == sorted(values)
    with pytest.raises(ConfigError, match="did you mean 'window'"):
        ablations.main(["windows"], [folder], tmp_path / "runs", 0, more, plan, results, page)


def test_every_question_of_the_plan_is_one_that_can_be_asked() -> None:
    from typing import Any

    from rtvc.train.config import load_config
    from rtvc.train.registry import default_config, stage_type

    for question in ablations.questions().values():
        for settings in question.answers.values():
            kind: Any = stage_type(question.stage)
            assert (
                load_config(
                    kind.config_type, default_config(question.stage), [*question.base, *settings]
                ).steps
                > 0
            )
