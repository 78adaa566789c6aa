"""The comparison of normalisations: the same data for all, a table with the winner first,
resumable."""

import json
from pathlib import Path

import pytest
import torch

from rtvc.benchmarks import normalisation
from rtvc.errors import ConfigError
from tests.support.labelled_speech import make_labelled
from tests.support.small_models import SIZES


def test_the_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_labelled(tmp_path / "speech", 2)
    monkeypatch.setattr(normalisation, "SMALL", SIZES)
    whole = normalisation.settings

    def short(*given: object, **named: object) -> dict[str, object]:
        made = whole(*given, **named)  # type: ignore[arg-type]
        return made | {
            "data": made["data"] | {"batch": 2, "frames": 24, "held_out": 2},
            "device": "cpu",
        }

    monkeypatch.setattr(normalisation, "settings", short)
    page = tmp_path / "docs" / "normalisation.md"
    how = {
        "steps": 3,
        "labelled": [folder],
        "runs": tmp_path / "runs",
        "out": page,
        "as_json": True,
    }
    normalisation.main(**how)  # type: ignore[arg-type]
    results = json.loads(capsys.readouterr().out)
    assert [result["statistics"] for result in results] == ["frame", "film", "predicted"]
    assert all(
        result["steps"] == 3 and result["skipped"] == 0 and 0 < result["stft"] < 100
        for result in results
    ), results
    sizes = {result["statistics"]: result["parameters"] for result in results}
    assert sizes["predicted"] > sizes["frame"] == sizes["film"]
    rows = [
        line
        for line in page.read_text().splitlines()
        if line.startswith("| ") and line[2:4] != "st" and "---" not in line
    ]
    best = min(results, key=lambda result: result["stft"])["statistics"]
    assert (
        len(rows) == 3 and rows[0].startswith(f"| **{best}** |") and "--steps 3" in page.read_text()
    )
    normalisation.main(**how)  # type: ignore[arg-type]
    again = json.loads(capsys.readouterr().out)
    assert [r["stft"] for r in again] == [r["stft"] for r in results], (
        "finished runs are measured again, not trained again"
    )
    with pytest.raises(ConfigError, match="frame"):
        normalisation.main(**(how | {"only": ["frames"]}))  # type: ignore[arg-type]


def test_all_hear_the_same(tmp_path: Path) -> None:
    from rtvc.train.config import validated
    from rtvc.train.streaming.stream import Stream
    from rtvc.train.streaming.stream_config import StreamConfig

    folder = make_labelled(tmp_path / "speech", 2)
    batches = []
    for name in ("frame", "predicted"):
        given = normalisation.settings([folder], name, 8, 0, SIZES)
        given["data"] |= {"held_out": 2}
        batches.append(Stream(validated(StreamConfig, given, "test")).batch(3))
    assert all(torch.equal(batches[0][key], batches[1][key]) for key in batches[0])
