"""Learning curves: what runs measured, by step and by core-hours, as one picture."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from rtvc.benchmarks.pages import learning
from rtvc.benchmarks.pages.learning import Point, curves, draw, kept, panels, read_run, stages_of
from rtvc.errors import ConfigError


def run_of(folder: Path, lines: Sequence[Mapping[str, float]], tail: str = "") -> Path:
    """A run's folder with these metrics."""
    folder.mkdir()
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + tail)
    return folder


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """An hour of ten steps; a kill cut off its last line."""
    lines = [
        {"step": 5, "loss/units": 3.0, "run/seconds": 1_800.0},
        {"step": 5, "valid/units": 2.0, "valid/units_right_0": 0.2, "valid/units_right_8": 0.3},
        {"step": 10, "loss/units": 2.0, "run/seconds": 3_600.0},
        {
            "step": 10,
            "valid/units": 1.5,
            "valid/units_right_0": 0.25,
            "valid/units_right_8": 0.375,
            "valid/phonemes": 0.0,
        },
    ]
    return run_of(tmp_path / "first", lines, '{"step": 11, "val')


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """Two hours of four steps, with phonemes from the second on."""
    lines = [
        {"step": 2, "run/seconds": 3_600.0},
        {"step": 2, "valid/units": 1.25, "valid/phonemes": float("nan")},
        {"step": 4, "run/seconds": 7_200.0},
        {"step": 4, "valid/units": 1.0, "valid/phonemes": 0.75},
    ]
    return run_of(tmp_path / "second", lines)


def test_runs_of_one_title_follow_one_another(first: Path, second: Path) -> None:
    (stage,) = stages_of([f"units={first}", f"units={second}"], cores=2)
    assert stage.metrics["units"] == [(5, 2.0), (10, 1.5), (12, 1.25), (14, 1.0)]
    assert stage.metrics["units_right_8"] == [(5, 0.3), (10, 0.375)]
    assert stage.clock == [(0, 0.0), (5, 1.0), (10, 2.0), (12, 4.0), (14, 6.0)]
    assert stage.last == (14, 6.0)


def test_what_was_not_measured_is_not_drawn(first: Path, second: Path) -> None:
    """Neither NaN, nor the 0 that earlier versions wrote where nothing had a label."""
    alone, both = curves("a", [read_run(first)]), stages_of([f"a={first}", f"a={second}"], 1)[0]
    assert "phonemes" not in alone.metrics
    assert Point(14, 0.75) in both.metrics["phonemes"]
    assert all(point.value == point.value for point in both.metrics["phonemes"])


def test_the_settings_of_the_dial_share_a_panel() -> None:
    found = panels(["units", "units_right_0", "units_right_8", "rank"])
    assert found == {
        "units": {"units": ""},
        "units_right": {"units_right_0": "0 ms ahead", "units_right_8": "100 ms ahead"},
        "rank": {"rank": ""},
    }


def test_the_picture_shows_steps_hours_and_last_values(
    first: Path, second: Path, tmp_path: Path
) -> None:
    """Matplotlib writes each text of an SVG as a comment beside its outlines."""
    picture = tmp_path / "docs" / "learning.svg"
    arguments = [f"units={first}", f"joint={second}"]
    learning.main(arguments, picture, None, 1.0)
    text = picture.read_text()
    for said in (
        "units: 10 steps, 1.0 core-hours",
        "joint: 4 steps, 2.0 core-hours",
        "100 ms ahead: 0.375",
        "units, cross entropy: 1.5",
        "phonemes, cross entropy: 0.75",
    ):
        assert f"<!-- {said} -->" in text, said
    draw(stages_of(arguments, 1.0), tmp_path / "again.svg", "a note")
    draw(stages_of(arguments, 1.0), tmp_path / "twice.svg", "a note")
    assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "twice.svg").read_bytes()
    learning.main(arguments, tmp_path / "some.png", ["units"], 1.0)
    assert (tmp_path / "some.png").read_bytes().startswith(b"\x89PNG")


def test_a_metric_or_a_panel_can_be_chosen(first: Path) -> None:
    (stage,) = stages_of([str(first)], 1.0)
    assert stage.title == "first"
    assert set(kept(stage, ["units_right"]).metrics) == {"units_right_0", "units_right_8"}
    assert set(kept(stage, ["units", "rank"]).metrics) == {"units"}


def test_what_cannot_be_drawn_is_said(first: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        stages_of([str(tmp_path / "nowhere")], 1.0)
    silent = run_of(tmp_path / "silent", [{"step": 1, "loss/units": 1.0}])
    with pytest.raises(ConfigError, match="expected held-out measurements"):
        stages_of([str(silent)], 1.0)
    timeless = run_of(tmp_path / "timeless", [{"step": 1, "valid/units": 1.0}])
    with pytest.raises(ConfigError, match="run/seconds"):
        stages_of([str(timeless)], 1.0)
    with pytest.raises(ConfigError, match="none to draw"):
        learning.main([str(first)], tmp_path / "x.svg", ["rank"], 1.0)
    with pytest.raises(ConfigError, match=r"\.svg"):
        learning.main([str(first)], tmp_path / "x.txt", None, 1.0)
    assert not (tmp_path / "x.svg").exists()
