"""The command line: lazy, clear in its errors, readable by people and machines."""

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Annotated

import numpy as np
import pytest
import soundfile
import typer
from standins import recordings_here, speech

import rtvc.cli
from rtvc.audio.check import AudioWarning
from rtvc.cli import COMMANDS, available, main
from rtvc.errors import RtvcError
from rtvc.version import commit
from rtvc.voices.voice import Voice


def test_help_imports_no_torch() -> None:
    """Neither the list of commands nor the help of any command waits for torch."""
    code = """
import sys
from rtvc.cli import available, main
for words in ([], *([name] for name in available())):
    assert main([*words, "--help"]) == 0, words
    assert "torch" not in sys.modules, words
"""
    shown = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert {"convert", "voice"} <= set(available())
    for name in available():
        assert (
            f"Usage: rtvc {name} " in shown
            and f" {name} " in shown
            and COMMANDS[name][1][:20] in shown
        )


def test_version_and_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    said = re.fullmatch(r"(\S+)(?: \(([0-9a-f]{12,}(?:-dirty)?)\))?\n", capsys.readouterr().out)
    assert said and said[1] == rtvc.__version__ and said[2] == commit()
    assert main(["evalute", "x"]) == 2
    assert "No such command 'evalute'. Did you mean 'evaluate'?" in capsys.readouterr().err
    assert main(["convert"]) == 2
    assert main([]) in (0, 2)


def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **functions: object) -> None:
    """Puts a module `bench` with these functions on the command line."""
    module = ModuleType("rtvc.benchmarks.cli.bench")
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, "rtvc.benchmarks.cli.bench", module)
    place = tmp_path / "rtvc" / "benchmarks" / "cli"
    place.mkdir(parents=True, exist_ok=True)
    (place / "bench.py").touch()
    monkeypatch.setattr(rtvc.cli, "__file__", str(tmp_path / "rtvc" / "cli" / "__init__.py"))


def test_groups_and_single_commands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_all(count: Annotated[int, typer.Option()] = 1) -> None:
        """Run."""
        print("ran", count)

    def bench() -> None:
        """One."""
        raise typer.Exit(3)

    fake(monkeypatch, tmp_path, run_all=run_all, __all__=["run_all"])
    assert available() == ["bench"]
    assert main(["bench", "run-all", "--count", "4"]) == 0 and capsys.readouterr().out == "ran 4\n"
    fake(monkeypatch, tmp_path, bench=bench)
    assert main(["bench"]) == 3


def test_errors_warnings_and_interruptions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def bench() -> None:
        for _ in range(2):
            warnings.warn("too loud", AudioWarning, stacklevel=1)
        warnings.warn("numpy is old", UserWarning, stacklevel=1)
        raise RtvcError("expected a [tuple], got a [list] " + "x" * 200)

    fake(monkeypatch, tmp_path, bench=bench)
    assert main(["bench"]) == 2
    error = capsys.readouterr().err
    assert error == "warning: too loud\nerror: expected a [tuple], got a [list] " + "x" * 200 + "\n"

    def interrupted() -> None:
        raise KeyboardInterrupt

    fake(monkeypatch, tmp_path, bench=interrupted)
    assert main(["bench"]) != 0


def test_it_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "rtvc", "evalute"], capture_output=True, text=True)
    assert (
        done.returncode == 2
        and "Did you mean 'evaluate'?" in done.stderr
        and "Traceback" not in done.stderr
    )


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with recordings, the tiny models behind the command line."""
    return recordings_here(monkeypatch, tmp_path)


def test_convert(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "me.wav", "-r", "anna.wav", "-o", "said.wav"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        "me.wav in the voice of anna: said.wav\nduration 2.00 s  real-time factor 0."
    )
    assert out.endswith("latency 50.0 ms as a stream\n")
    assert (
        soundfile.info("said.wav").samplerate == 24000
        and soundfile.info("said.wav").frames == 48000
    )


def test_convert_with_everything(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "convert me.wav -r anna.wav bob.wav -o said.flac --timbre bob.wav --prosody anna.wav"
        " --pitch -2 --device cpu --model stream --json"
    )
    assert main(words.split()) == 0
    told = json.loads(capsys.readouterr().out)
    assert told.pop("rtf") > 0
    assert told == {
        "path": "said.flac",
        "voice": "bob with the prosody of anna",
        "model": "stream",
        "device": "cpu",
        "sample_rate": 24000,
        "duration_s": 2.0,
        "latency_ms": 50.0,
    }
    assert main(["convert", "me.wav", "-r", "anna.wav", "-o", "said.wav", "--model", "whole"]) == 0
    assert "whole needs whole recordings" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("convert me.wav -o said.wav", "got no reference"),
        ("convert me.wav -r anna.wav -o said.xyz", "got said.xyz"),
        (
            "convert me.wav -r anna.wav -o gone/said.wav",
            "(there is no folder gone): make the folder first",
        ),
        ("convert me.wav -r anna.wav --model gold", "there is no model 'gold'"),
        ("convert me.wav -r anna.wav --device gold", "the device 'gold' cannot be used here"),
        (
            "convert gone.wav -r anna.wav",
            "expected an audio file, gone.wav is not there: check the path",
        ),
        ("voice show anna.wav", "is no voice file"),
        ("voice mix a.voice:x -o m.voice", "with a number as the weight, got"),
        ("voice create -o m.voice", "got no reference"),
    ],
)
def test_errors_say_what_to_do(
    files: Path, capsys: pytest.CaptureFixture[str], words: str, wanted: str
) -> None:
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and wanted in error and error.count("\n") == 1


def test_clipping_is_mentioned_once(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wave = speech(2)
    wave[1000:1060] = 0.6
    soundfile.write("me.wav", np.clip(wave, -0.6, 0.6), 16000, subtype="FLOAT")
    assert main(["convert", "me.wav", "-r", "anna.wav", "-o", "said.wav"]) == 0
    assert capsys.readouterr().err.count("warning: me.wav is slightly clipped") == 1


def test_voice_files(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["voice", "create", "anna.wav", "me.wav", "-o", "anna.voice"]) == 0
    out = capsys.readouterr().out
    assert (
        "anna.voice: anna, " in out
        and "made by tiny" in out
        and "anna.wav" in out
        and "2.0 s" in out
        and "dBFS" in out
    )
    assert "give 5 to 20 s, or several recordings" in out
    assert (
        main(
            [
                "voice",
                "create",
                "bob.wav",
                "-o",
                "b.voice",
                "--name",
                "Bob",
                "--prosody",
                "anna.wav",
                "--json",
            ]
        )
        == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert (told["name"], told["space"]) == ("Bob", "tiny") and told["bytes"] < 4096
    assert main(["voice", "mix", "anna.voice:0.75", "b.voice:0.25", "-o", "mix.voice"]) == 0
    assert "75% anna" in capsys.readouterr().out
    mixed, a, b = Voice.load("mix.voice"), Voice.load("anna.voice"), Voice.load("b.voice")
    assert np.allclose(mixed.acoustic, 0.75 * a.acoustic + 0.25 * b.acoustic)
    assert (
        main(["voice", "mix", "anna.voice", "b.voice", "-o", "even.voice", "--name", "even"]) == 0
    )
    assert Voice.load("even.voice").parts == [(0.5, "anna"), (0.5, "Bob")]
    capsys.readouterr()
    assert main(["voice", "show", "mix.voice", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["source"]["space"] == "tiny"
    assert main(["convert", "me.wav", "-r", "mix.voice", "-o", "said.wav"]) == 0
    assert "in the voice of 75% anna + 25% Bob" in capsys.readouterr().out


def test_a_voice_of_unknown_origin_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    path = Voice(torch.ones(128), torch.ones(128), "[red]x").save(tmp_path / "x:1.voice")
    assert main(["voice", "show", str(path)]) == 0
    assert "[red]x" in capsys.readouterr().out.replace("\n", "")
    assert main(["voice", "mix", str(path), "-o", str(tmp_path / "y.voice")]) == 0, (
        "a colon in a file's name is no weight"
    )
