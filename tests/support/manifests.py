"""Recordings of a moment, and what `rtvc data prepare` says of a folder of them."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtvc.cli import main


def voice(path: Path, form: str = "WAV", subtype: str | None = "PCM_16") -> Path:
    """A second and a half of syllables."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(36_000) / 24_000
    wave = np.random.default_rng(0).normal(0, 0.1, 36_000) * np.sin(2 * np.pi * 2 * time) ** 2
    soundfile.write(os.fsencode(path), wave, 24_000, format=form, subtype=subtype)
    return path


def prepare(
    folder: Path, out: Path, capsys: pytest.CaptureFixture[str], *more: str
) -> dict[str, object]:
    """What the command says of a folder."""
    arguments = ["data", "prepare", str(folder), "-o", str(out), "--no-phonemes", "--json", *more]
    assert main(arguments) == 0, capsys.readouterr()
    told: dict[str, object] = json.loads(capsys.readouterr().out)
    return told


def refusals(out: Path) -> dict[str, str]:
    """Path -> reason of the report beside a manifest."""
    lines = (out.parent / f"{out.name}.refused.tsv").read_bytes().decode().split("\n")
    assert lines[0] == "path\treason" and lines[-1] == ""
    rows = [line.split("\t") for line in lines[1:-1]]
    assert all(len(row) == 2 for row in rows)
    return {path: reason for path, reason in rows}
