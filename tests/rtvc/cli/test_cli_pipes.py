"""What every command prints reads well in a pipe: 80 columns, no colour, nothing cut off."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile
import typer
from standins import recording, speech, use_tiny_models

import rtvc.cli
from rtvc.cli import COMMANDS, attach, available, main
from rtvc.evaluate import tables
from rtvc.evaluate.summary import METRICS
from rtvc.models import cost_tables

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "benchmarks" / "results"
LONG = "a-very-long-name-of-a-recording-of-anna-who-reads-in-the-kitchen-on-a-sunday.wav"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with recordings, and tiny models; nothing says how wide the terminal is."""
    use_tiny_models(monkeypatch)
    for name in ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE", "CLICOLOR_FORCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.chdir(tmp_path)
    recording(tmp_path / "me.wav")
    recording(tmp_path / LONG, pitch=200)
    return tmp_path


def subcommands() -> dict[str, Any]:
    """Every command of the command line, `weights show` for one."""
    found = {}
    for name in available():
        app = typer.Typer()
        app.callback()(lambda: None)
        attach(app, name, rtvc.cli.importlib.import_module(COMMANDS[name][0]))
        command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found |= {f"{name} {sub}": c for sub, c in inner.items()} if inner else {name: command}
    return found


def check(text: str, what: str) -> None:
    """Fails where a table is wider than 80 columns, coloured or cut."""
    assert text.strip(), f"{what} prints nothing"
    assert "\x1b" not in text, f"{what} prints colours into a pipe"
    assert "…" not in re.sub(r"-?\d … [-+]?\d", "", text), f"{what} cuts: {text}"
    wide = [line for line in text.splitlines() if len(line) > 80]
    assert not wide, f"{what} is wider than 80 columns: {wide[0]}"


@pytest.mark.parametrize("words", ["", *COMMANDS])
def test_help_fits(words: str, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in [words, *(name for name in subcommands() if name.split()[0] == words)]:
        assert main([*command.split(), "--help"]) == 0
        text = capsys.readouterr().out
        wide = [line for line in text.splitlines() if len(line) > 80]
        assert not wide and "\x1b" not in text and text.strip()


def test_every_command_that_prints_figures_prints_them_for_programs() -> None:
    without = [
        name
        for name, command in subcommands().items()
        if not any("--json" in parameter.opts for parameter in command.params)
    ]
    assert without == []


def test_tables_of_voices_recordings_and_devices_fit(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for line in (
        "convert me.wav -r me.wav -o said.wav",
        f"voice create {LONG} me.wav -o a.voice --name Anna",
        "voice create me.wav -o b.voice",
        "voice mix a.voice:0.7 b.voice:0.3 -o c.voice",
        "voice show a.voice",
        "voice show c.voice",
        f"data prepare {files} -o m.jsonl --no-phonemes",
        "data show m.jsonl",
        "devices",
        "doctor --no-speed",
    ):
        codes = (0, 1) if line.startswith("doctor") else (0,)  # 1: nothing to speak into here
        assert main(line.split()) in codes, capsys.readouterr().err
        printed = capsys.readouterr()
        lines = [row for row in printed.out.splitlines() if str(files) not in row]
        check("\n".join(lines), line)
        if line.startswith("voice create a-"):
            head = next(row for row in lines if row.startswith("reference"))
            names = "".join(row[: head.index("length")].strip() for row in lines)
            assert LONG in names, "a long name goes on in the next row"


def test_the_table_of_costs_fits_and_names_its_rows(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stats", "--frames", "66", "--repeats", "1"]) == 0
    text = capsys.readouterr().out
    check(text, "stats")
    for part in cost_tables.MODELS["styletts-vc"]():
        assert re.search(rf"^ ?{part.name} +[\d,]+ ", text, re.MULTILINE), part.name


def test_tables_of_results_fit(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = (RESULTS / f"quality-{name}.json" for name in ("stream", "stream-unfitted"))
    assert main(["evaluate", "--compare", str(before), str(after)]) == 0
    check(capsys.readouterr().out, "evaluate --compare")
    from rich.console import Console

    result = json.loads(after.read_text())
    missing = set(METRICS) - set(result["summary"])  # measured before those judges came
    result["summary"] |= dict.fromkeys(missing)
    result["summary"]["ci95"] |= dict.fromkeys(missing)
    result["unavailable"] = result.get("unavailable", {}) | dict.fromkeys(missing, "not asked")
    Console().print(tables.of_result(result))
    check(capsys.readouterr().out, "evaluate")


def test_tables_of_benchmarks_fit() -> None:
    from rtvc.benchmarks import report

    found = json.loads((RESULTS / "intel-r-xeon-r-processor-2-cores.json").read_text())
    check(report.table(found), "bench components")


@pytest.mark.parametrize(
    ("typed", "index", "wanted"),
    [
        ("rtvc con", 1, {"control", "convert"}),
        ("rtvc voice ", 2, {"create", "mix", "show"}),
        ("rtvc voice mix --na", 3, {"--name"}),
        ("rtvc convert me.wav --ti", 3, {"--timbre"}),
    ],
)
def test_the_shell_completes_commands_and_options(typed: str, index: int, wanted: set[str]) -> None:
    asked = {"_RTVC_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(index)}
    done = subprocess.run(
        [sys.executable, "-m", "rtvc"],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | asked,
        capture_output=True,
        text=True,
    )
    assert set(done.stdout.split()) == wanted, done.stderr


def test_completion_can_be_shown_and_installed(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    for option in ("--show-completion", "--install-completion"):
        # Out of a bash, as people do: the shell is found among the parents, and make's is sh.
        command = f"{shlex.quote(sys.executable)} -m rtvc {option}; exit $?"
        done = subprocess.run(
            ["bash", "-c", command], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "completion" in done.stdout
    assert "_RTVC_COMPLETE" in (tmp_path / ".bash_completions" / "rtvc.sh").read_text()


def test_an_interrupted_conversion_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C in the middle of writing: exit code 130, no half file and no temporary one."""
    soundfile.write(tmp_path / "long.wav", speech(60.0), 16_000)
    code = f"""
import sys, time
sys.path.insert(0, {str(ROOT / "tests" / "support")!r})
import rtvc.converter, rtvc.cli
from standins import TinyModel
from rtvc.models.streaming import assets

assets.load_default = TinyModel
piecewise = rtvc.converter.VoiceConverter.convert_recording
def slow(self, *given, **options):
    for piece in piecewise(self, *given, **options):
        yield piece
        print("ready", flush=True)
        time.sleep(60)
rtvc.converter.VoiceConverter.convert_recording = slow
sys.exit(rtvc.cli.main("convert long.wav -r long.wav -o said.wav --fit 0".split()))
"""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None and running.stderr is not None
        assert running.stdout.readline() == "ready\n", running.stderr.read()
        running.send_signal(signal.SIGINT)
        assert running.wait(120) == 130
        assert "Traceback" not in running.stderr.read()
    assert os.listdir(tmp_path) == ["long.wav"]


def test_long_work_shows_its_progress_on_a_terminal_alone(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rtvc.cli.progress import busy, watched

    def told() -> str:
        with busy("making the voice"):
            assert list(watched([b"123", b"45"], "converting", 5)) == [b"123", b"45"]
        return capsys.readouterr().err

    assert told() == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    shown = told()
    assert "making the voice" in shown
