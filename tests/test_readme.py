"""The README: its code runs, its links lead somewhere, and the two commands come first."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from standins import use_tiny_models

from rtvc.cli import available, main
from rtvc.models.streaming import assets

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The fenced code blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the examples; the shipped model, or a tiny one where the weights are not
    there."""
    if not assets.DEFAULT.is_file():
        use_tiny_models(monkeypatch)
    monkeypatch.setattr(
        "rtvc.voices.fit.STEPS", 2
    )  # what fitting does to voices is tested in test_fit.py
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_blocks_run_one_after_another(folder: Path) -> None:
    names: dict[str, Any] = {}
    assert len(blocks("python")) >= 3
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert (folder / "said.wav").is_file() and (folder / "both.voice").stat().st_size < 16_384
    assert len(names["y"]) == len(names["x"]) * 24000 // names["sr"]


def test_the_commands_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        line.removeprefix("$ ")
        for block in blocks("console")
        for line in block.splitlines()
        if line.startswith("$ rtvc ")
    ]
    assert len(lines) >= 8
    for line in lines:
        assert main(line.split()[1:]) == 0, line
        assert capsys.readouterr().out, line


def test_what_the_readme_names_is_there() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert target.startswith("https://") or (ROOT / target).is_file(), target
    prose = re.sub(r"^```.*?^```", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    for command in set(re.findall(r"`rtvc ([a-z]+)[^`]*`", prose)):
        assert command in available(), f"the README names the command {command}"
    for path in re.findall(r"`((?:rtvc|engine|kernels|docs)/[\w/.]+\.\w+)`", prose):
        assert (ROOT / path).is_file(), path


def test_the_two_commands_come_within_the_first_forty_lines() -> None:
    head = "\n".join(TEXT.splitlines()[:40])
    assert (
        "$ make demo\n" in head
        and "$ make test\n" in head
        and "duration" in head
        and "docs/dataflow.svg" in head
    )
