"""The recipes of the documentation: every command of their pages runs, on small data."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from evaluation import FakeEvaluators
from standins import recording, speech

from rtvc.cli import main
from rtvc.models.streaming import assets
from rtvc.models.streaming.dial import DialConverter
from tests.support.small_models import small_dial
from tests.support.train_speech import make_corpus

ROOT = Path(__file__).parent.parent
PAGES = {path.stem: path for path in sorted((ROOT / "docs" / "recipes").glob("*.md"))}
SHORT = ("steps=2", "workers=0", "device=cpu", "log.tensorboard=false", "log.validate_every=0")
LABELLED = ("data.batch=2", "data.frames=48", "data.held_out=2", "data.shortest=1.0")
PAPER = (
    *("hidden_dim=16", "style_dim=8", "residual_dim=4", "width=4", "widest=8", "text_layers=1"),
    *("aligner_channels=16", "aligner_layers=1", "aligner_embedding=16", "pitch_width=2"),
)
SMALLER: dict[str, tuple[str, ...]] = {
    "train voice": (*SHORT, "data.batch=2", "data.seconds=1.0"),
    "train joint": (
        *(*SHORT, *LABELLED, "weights.foreign=0", "reference_frames=48", "head_start=0"),
    ),
    "train melody": (*SHORT, *LABELLED),
    "train stage2": (*SHORT, "init=[]", "data.batch=2", *(f"model.{size}" for size in PAPER)),
}
"""Settings that make a command quick; everything else of it is as the page has it."""


def commands(page: str) -> list[list[str]]:
    """The `$ rtvc …` and `$ mkdir …` lines of a page, as words; `rtvc` itself left out."""
    blocks = re.findall(r"^```console\n(.*?)^```", PAGES[page].read_text(), re.M | re.S)
    return [
        line.removeprefix("$ ").removeprefix("rtvc ").split()
        for block in blocks
        for line in block.splitlines()
        if line.startswith(("$ rtvc ", "$ mkdir "))
    ]


def run(page: str, check: Callable[[list[str], str], None], capsys: Any) -> int:
    """Runs a page's commands one after another, as small as they may be."""
    lines = commands(page)
    for words in lines:
        if words[0] == "mkdir":
            Path(words[1]).mkdir()
            continue
        smaller = SMALLER.get(" ".join(words[:2]), ())
        more = [part for setting in smaller for part in ("--set", setting)]
        assert main([*words, *more]) == 0, f"{shlex.join(words)}: {capsys.readouterr().err}"
        printed = capsys.readouterr().out
        assert printed.strip(), f"{shlex.join(words)} says nothing"
        check(words, printed)
    return len(lines)


def people(
    folder: Path, names: dict[str, float], count: int, text: str = "", seconds: float = 2.2
) -> None:
    """Recordings of some people, a folder each."""
    for name, pitch in names.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            path = folder / name / f"{name}{number}.wav"
            soundfile.write(path, speech(seconds, 24_000, pitch + 2 * number, seed=number), 24_000)
            if text:
                path.with_suffix(".txt").write_text(text)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the pages have it, a small model in place of the shipped one, and evaluators and
    listeners that need no weights."""
    torch.manual_seed(0)
    (tmp_path / "rtvc" / "assets").mkdir(parents=True)
    shipped = tmp_path / "rtvc" / "assets" / "stream.safetensors"
    assets.save_file(small_dial(), shipped)
    for module in ("rtvc.models.streaming.assets", "rtvc.train.streaming.stream_voice"):
        monkeypatch.setattr(f"{module}.DEFAULT", shipped)
    ears = FakeEvaluators().bundle()
    monkeypatch.setattr("rtvc.evaluate.evaluators.standard", lambda workers=1: ears)
    monkeypatch.setattr("rtvc.evaluate.run.standard", lambda workers=1: ears)
    monkeypatch.setenv("RTVC_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def whole(folder: Path) -> None:
    """The weights of the repository, with which what goes on from `checkpoints` fits together."""
    shutil.copytree(ROOT / "checkpoints", folder / "checkpoints")
    shutil.copy(
        ROOT / "rtvc" / "assets" / "stream.safetensors",
        folder / "rtvc" / "assets" / "stream.safetensors",
    )


def listeners(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whisper's encoder and swift-f0 by stand-ins of the waveform's spectrum."""

    def hears(wave: np.ndarray) -> np.ndarray:
        frames = max(1, len(wave) * 50 // 24_000)
        padded = np.pad(wave, (0, 1024 + frames * 480))
        rows = [np.abs(np.fft.rfft(padded[k * 480 : k * 480 + 1022])) for k in range(frames)]
        return np.log(np.array(rows, np.float32) + 1e-3)

    def sings(wave: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        times = np.arange(0, len(wave) / 24_000, 0.016)
        return times, np.full(len(times), 150.0), np.ones(len(times))

    layers = lambda wave: torch.from_numpy(np.stack([hears(wave)] * 2))  # noqa: E731
    monkeypatch.setattr("rtvc.train.streaming.bridge.Listener", lambda threads=1: hears)
    monkeypatch.setattr("rtvc.teacher.whisper.Listener", lambda numbers: layers)
    monkeypatch.setattr("rtvc.train.streaming.pseudo_labels.SwiftF0", lambda: sings)


def test_every_page_has_a_test_and_a_place_in_the_site() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    for page in PAGES:
        assert f"recipes/{page}.md" in text
        assert f"def test_{page}(" in Path(__file__).read_text()
        assert commands(page), f"{page} has no command"


def test_one_voice(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    people(folder, {"recordings": 190}, 8, "the quick brown fox")
    people(folder, {"others": 110}, 2)
    recording(folder / "me.wav")

    def check(words: list[str], printed: str) -> None:
        if words[0] == "train":
            assert "SECS2 to target" in printed and "WER" in printed

    assert run("one_voice", check, capsys) >= 2
    assert (folder / "said.wav").is_file()


def test_language(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("jiwer")
    listeners(monkeypatch)
    whole(folder)
    people(folder / "recordings", {"anna": 200, "bert": 110}, 4, seconds=4.0)
    people(folder / "held_out", {"carl": 130, "dora": 230}, 2)
    assert run("language", lambda words, printed: None, capsys) >= 8
    before, after = (json.loads((folder / f"{n}.json").read_text()) for n in ("before", "after"))
    assert before["recordings"] == after["recordings"] == 4


def test_singing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listeners(monkeypatch)
    whole(folder)
    people(folder / "recordings", {"anna": 200, "bert": 110}, 4)
    recording(folder / "song.wav")
    recording(folder / "anna.wav", pitch=200)
    assert run("singing", lambda words, printed: None, capsys) >= 5
    made = assets.load_file("singing.safetensors")
    assert isinstance(made, DialConverter) and made.config.pitch_highest == 1100
    assert (folder / "sung.wav").is_file()


def test_new_voices(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    people(folder, {"eval": 150}, 3)
    for name, pitch in (("anna", 200), ("tuesday", 205), ("me", 120)):
        recording(folder / f"{name}.wav", pitch=pitch)
    (folder / "pairs.tsv").write_text(
        "source\ttarget_speaker\treferences\ttranscript\n"
        "eval0.wav\tanna\teval1.wav eval2.wav\tthe quick brown fox\n"
    )

    def check(words: list[str], printed: str) -> None:
        if "--compare" in words:
            assert "SECS2 to target" in printed

    assert run("new_voices", check, capsys) >= 8


def test_second_stage(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = make_corpus(folder)
    table.rename(folder / "recordings.tsv")
    lines = commands("second_stage")
    assert [words[0] for words in lines] == ["mkdir", "data", "train"]

    def check(words: list[str], printed: str) -> None:
        if words[0] == "train":
            assert json.loads(printed)["skipped"] == 0

    # The page's folder has texts; here a table stands for it, whose phonemes are made up.
    (folder / "recordings").symlink_to(folder / "recordings.tsv")
    assert run("second_stage", check, capsys) == 3


def test_onnx(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    recording(folder / "me.wav")
    from rtvc.engine.backends import onnx

    # The second engine is quantised from the first one's graph: it is the same, and takes torch
    # half a minute to write.
    write, first = onnx.write_onnx, folder / "engine" / "step.onnx"
    monkeypatch.setattr(
        onnx,
        "write_onnx",
        lambda model, chunk, path, source: write(
            model, chunk, path, first if first.is_file() else source
        ),
    )

    def check(words: list[str], printed: str) -> None:
        if "--json" in words:
            figures = json.loads(printed)["parity"]
            assert figures["steps"] == 80 and figures["step_db"] > 10
        else:
            found = re.search(r"parity over 80 steps: ([\d.]+) dB a step", printed)
            assert found and float(found[1]) > 60

    assert run("onnx", check, capsys) == 2
    assert (folder / "engine" / "step.onnx").is_file()
