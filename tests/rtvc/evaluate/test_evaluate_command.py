"""`rtvc evaluate`: what it writes, and what it says where options or judges are missing."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from evaluation import FakeEvaluators, pair_list
from standins import speech, use_tiny_models

import rtvc.evaluate.run
from rtvc.cli import main
from rtvc.evaluate.converter import LibraryConverter
from rtvc.evaluate.report import marked

KEYS = ["summary", "pairs", "unavailable", "machine", "commit", "date", "model"]
"""Of a result."""


def test_command_writes_result_picture_and_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_tiny_models(monkeypatch)
    monkeypatch.setenv("RTVC_CACHE", str(tmp_path / "user"))
    monkeypatch.setattr(rtvc.evaluate.run, "standard", lambda workers: FakeEvaluators().bundle())
    path, out, page = pair_list(tmp_path), tmp_path / "out.json", tmp_path / "report"
    threads = torch.get_num_threads()
    arguments = [
        "evaluate",
        "--pairs",
        path,
        "--limit",
        2,
        "--chunk",
        25,
        "--json",
        out,
        "--report",
        page,
        "--workers",
        2,
    ]
    try:
        assert main([str(argument) for argument in arguments]) == 0
    finally:
        torch.set_num_threads(threads)
    said = capsys.readouterr()
    printed = said.out
    assert "SECS to target" in printed
    assert "DistillMOS" in printed and "WER2" in printed
    assert "2 pairs" in printed
    assert said.err.splitlines()[-1] == "report 2/2", "a log is told how far it is"

    result = json.loads(out.read_text())
    assert list(result) == KEYS
    assert result["model"] == "stream, 25 ms chunks"
    assert result["summary"]["pairs_evaluated"] == len(result["pairs"]) == 2
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "out.cache").rglob("*.npz"))) == 2

    html = (page / "index.html").read_text()
    assert html.count("<tbody>") == 2
    assert html.count("<audio") == 6
    assert (
        "WER2 of the source" in html
        and "heard by the second recogniser: the quick brown fox" in html
    )
    assert "http" not in html, "the page must not need the network"
    assert (page / "overview.png").is_file()
    for pair in result["pairs"]:
        assert (page / "pictures" / f"{pair['pair']}.png").is_file()
        wave, rate = soundfile.read(page / "audio" / f"{pair['pair']}.flac")
        assert (len(wave), rate) == (24000, 24000)


def test_a_backend_of_the_engine_can_run_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    from rtvc.engine.backends.eager import TorchBackend

    use_tiny_models(monkeypatch)
    opened = []

    def open_stepper(converter: object, samples: int) -> TorchBackend:
        opened.append(samples)
        return TorchBackend(converter, samples)  # type: ignore[arg-type]

    backend, plain = (
        LibraryConverter("stream", 25, open_stepper=open_stepper),
        LibraryConverter("stream", 25),
    )
    assert (
        opened == [600]
        and backend.name == "stream, 25 ms chunks, torch-eager"
        and backend.key != plain.key
    )
    x, voice = speech(1.0, 24_000), backend._converter.voice((speech(), 16_000))
    np.testing.assert_allclose(
        backend._timed(x, 24_000, voice)[0], plain._timed(x, 24_000, voice)[0], atol=1e-6
    )


def test_options_that_contradict_are_told_before_files_are_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--pairs", str(tmp_path / "none.tsv"), "--backend", "auto"]) == 2
    assert "give --chunk as well" in " ".join(capsys.readouterr().err.split())


def test_missing_judges_leave_empty_columns_that_say_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_tiny_models(monkeypatch)
    monkeypatch.setenv("RTVC_CACHE", str(tmp_path / "user"))
    monkeypatch.setattr(
        rtvc.evaluate.run, "standard", lambda workers: FakeEvaluators().without_judges()
    )
    arguments = [
        "evaluate",
        "--pairs",
        pair_list(tmp_path),
        "--limit",
        1,
        "--report",
        tmp_path / "report",
        "--json",
        tmp_path / "out.json",
    ]
    assert main([str(argument) for argument in arguments]) == 0
    assert "second opinion" in " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert (
        json.loads((tmp_path / "out.json").read_text())["unavailable"]["distillmos"]
        == "no second opinion"
    )
    html = (tmp_path / "report" / "index.html").read_text()
    assert "<td>DistillMOS</td><td>–</td><td>no second opinion</td>" in html
    assert "second recogniser:" not in html


def test_command_names_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--pairs", str(tmp_path / "none.tsv")]) == 2
    assert "no list of pairs" in capsys.readouterr().err


def test_words_that_were_not_said_are_marked() -> None:
    assert marked("A CAT SAT ON IT", "A bat sat on.") == "a <mark>bat</mark> sat on"
    assert marked("A CAT", "") == "nothing"
