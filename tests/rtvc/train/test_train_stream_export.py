"""Parts of several runs become one model file; the recipe is a list of commands that stops where
something went wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel
from safetensors import safe_open

from rtvc.cli import main
from rtvc.errors import CheckpointError, ConfigError, TrainingError
from rtvc.models.streaming.assets import load_file, save_file
from rtvc.models.streaming.decoder import BINS, ENVELOPE
from rtvc.models.streaming.dial import DialConverter
from rtvc.models.streaming.model import StreamingConfig, StreamingConverter
from rtvc.models.streaming.timbre import PARTS as TIMBRE_PARTS
from rtvc.train.config import load_config
from rtvc.train.export import export
from rtvc.train.recipe import TRAINED, Step, follow, plan, run_step
from rtvc.train.registry import default_config, stage_type
from rtvc.train.state import Checkpoints, load_weights, save_weights
from rtvc.train.streaming.stream_config import PARTS
from tests.rtvc.models.test_dial import small
from tests.support.small_models import SIZES

CONFIG = StreamingConfig(**SIZES)  # type: ignore[arg-type]


def run_of(folder: Path, stage: str, model: StreamingConverter, parts: tuple[str, ...]) -> Path:
    note = {"stage": stage, "step": "7", "config": json.dumps({"model": model.config.model_dump()})}
    save_weights(
        folder / "weights.safetensors",
        {name: model.get_submodule(name).state_dict() for name in parts},
        note,
    )
    return folder


@pytest.fixture
def three(tmp_path: Path) -> tuple[StreamingConverter, list[Path]]:
    model = StreamingConverter(CONFIG)
    content = run_of(tmp_path / "content", "StreamContent", model, ("encoder",))
    pitch = run_of(tmp_path / "pitch", "StreamPitch", model, ("pitch",))
    return model, [content, pitch, run_of(tmp_path / "stream", "Stream", model, PARTS)]


def test_parts_become_one_model(
    three: tuple[StreamingConverter, list[Path]], tmp_path: Path
) -> None:
    model, runs = three
    path = export(runs, tmp_path / "new" / "stream.safetensors", {"hours": "3"})
    made = load_file(path)
    assert made.config == CONFIG
    for name, weight in model.state_dict().items():
        assert torch.equal(made.state_dict()[name], weight.half().float()), name
    with safe_open(path, "pt") as file:
        facts = file.metadata()
    assert facts["hours"] == "3" and facts["commit"]
    origin = json.loads(facts["parts"])
    assert (
        origin["encoder"] == "StreamContent step 7"
        and origin["pitch"] == "StreamPitch step 7"
        and len(origin) == 2 + len(PARTS)
    )


def test_formants_are_raised_and_nothing_else(
    three: tuple[StreamingConverter, list[Path]], tmp_path: Path
) -> None:
    _, runs = three
    plain = load_file(export(runs, tmp_path / "plain.safetensors"))
    path = export(runs, tmp_path / "sharp.safetensors", sharpen=0.3)
    sharp = load_file(path)
    with safe_open(path, "pt") as file:
        assert file.metadata()["sharpened"] == "0.3"
    heard = torch.randn(50, plain.decoder.head.in_features)
    before, after = (
        model.decoder.head(heard).detach().double().unflatten(1, (-1, 2, BINS))
        for model in (plain, sharp)
    )
    assert torch.equal(before[:, :, 1], after[:, :, 1])  # noise
    # the real cepstrum of a log-magnitude: of its even extension
    before, after = (
        torch.fft.irfft(filters[:, :, 0].to(torch.complex128))[..., :BINS]
        for filters in (before, after)
    )
    assert torch.allclose(after[..., :ENVELOPE], before[..., :ENVELOPE], atol=2e-3)
    assert torch.allclose(after[..., ENVELOPE:], 1.3 * before[..., ENVELOPE:], atol=2e-3)
    assert (after - before).abs().max() > 0.02
    for name, weight in plain.state_dict().items():
        if not name.startswith("decoder.head."):
            assert torch.equal(weight, sharp.state_dict()[name]), name


def test_later_runs_replace_parts_of_an_earlier_model(
    three: tuple[StreamingConverter, list[Path]], tmp_path: Path
) -> None:
    model, (content, _, _) = three
    other = StreamingConverter(CONFIG)
    shipped = save_file(other, tmp_path / "shipped.safetensors")
    made = load_file(export([shipped, content], tmp_path / "out.safetensors"))
    assert torch.equal(made.encoder.out.weight, model.encoder.out.weight.half().float())
    assert torch.equal(made.pitch.out.weight, other.pitch.out.weight.half().float())


def test_a_killed_run_gives_its_last_checkpoint(
    three: tuple[StreamingConverter, list[Path]], tmp_path: Path
) -> None:
    model, (content, pitch, stream) = three
    killed = tmp_path / "killed"
    state: dict[str, Any] = {
        "stage": "StreamContent",
        "config": json.dumps({"model": CONFIG.model_dump()}),
        "modules": {"encoder": model.encoder.state_dict()},
        "average": {},
        "averaged": ["encoder"],
    }
    Checkpoints(killed).save(9, state)
    assert content != killed
    made = load_file(export([killed, pitch, stream], tmp_path / "out.safetensors"))
    assert torch.equal(made.encoder.out.weight, model.encoder.out.weight.half().float())


def test_what_does_not_make_a_model_is_refused(
    three: tuple[StreamingConverter, list[Path]], tmp_path: Path
) -> None:
    model, (content, pitch, stream) = three
    out = tmp_path / "out.safetensors"
    with pytest.raises(CheckpointError, match="runs that give pitch"):
        export([content, stream], out)
    larger = StreamingConverter(
        CONFIG.model_copy(update={"pitch_hidden": 24, "content_hidden": 24})
    )
    wide = run_of(tmp_path / "wide", "StreamContent", larger, ("encoder",))
    with pytest.raises(CheckpointError, match="different sizes"):
        export([wide, pitch, stream], out)
    sings = run_of(tmp_path / "sings", "StreamPitch", larger, ("pitch",))
    made = load_file(export([content, sings, stream], tmp_path / "sings.safetensors"))
    assert made.config == CONFIG.model_copy(update={"pitch_hidden": 24}), "it brings its own sizes"
    with torch.no_grad():
        model.pitch.out.weight[0, 0] = 1e6
    with pytest.raises(CheckpointError, match=r"pitch\.out\.weight cannot be written"):
        export(
            [content, run_of(tmp_path / "diverged", "StreamPitch", model, ("pitch",)), stream], out
        )
    save_weights(tmp_path / "foreign.safetensors", {"bridge": {"w": torch.zeros(1)}}, {})
    with pytest.raises(CheckpointError, match="no part of a streaming model"):
        export([tmp_path / "foreign.safetensors"], out)
    save_weights(tmp_path / "mute.safetensors", {"pitch": model.pitch.state_dict()}, {})
    with pytest.raises(CheckpointError, match="sizes"):
        export([tmp_path / "mute.safetensors"], out)
    assert not out.exists()


def test_commands(
    three: tuple[StreamingConverter, list[Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, runs = three
    out = tmp_path / "out.safetensors"
    words = [*map(str, runs), "-o", str(out)]
    assert main(["train", "export", *words, "--fact", "hours=2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(out), "bytes": out.stat().st_size}
    assert (
        main(["train", "export", *words, "--fact", "hours"]) == 2
        and "key=value" in capsys.readouterr().err
    )
    assert main(["train", "recipe", "m.tsv", "-o", "x.safetensors", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9 and all(line.startswith("rtvc ") for line in lines)
    assert main(["train", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "export" in shown and "recipe" in shown and "stage" in shown
    assert main(["train", "no_such_stage"]) == 2 and "there is no stage" in capsys.readouterr().err


def test_the_recipe_hands_on_what_it_made(tmp_path: Path) -> None:
    steps = plan(
        tmp_path / "m.tsv",
        tmp_path / "x.safetensors",
        tmp_path,
        utterances=9,
        overrides=["stream.steps=5"],
    )
    trained = ["stream_content", "stream_pitch", "stream", "stream_joint"]
    assert [step.name for step in steps] == [
        "teacher",
        "speech",
        "bridge",
        "labels",
        *trained,
        "export",
    ]
    words = {step.name: step.arguments for step in steps}
    assert str(tmp_path / "runs" / "bridge") in words["labels"] and "9" in words["speech"]
    assert "steps=5" in words["stream"] and not any(
        "steps=5" in words[name] for name in TRAINED if name != "stream"
    )
    assert any(
        "runs/stream_content" in word and word.startswith("init=") for word in words["stream"]
    )
    assert [str(tmp_path / "runs" / name) for name in TRAINED[1:]] == list(words["export"][2:6])
    for name in TRAINED:
        given = [
            word
            for before, word in zip(words[name], words[name][1:], strict=False)
            if before == "--set"
        ]
        kind: Any = stage_type(name)
        settings = load_config(kind.config_type, default_config(name), given)
        assert all(folder.is_relative_to(tmp_path) for folder in settings.data.labelled)
        if name == "stream":
            assert [part.path for part in settings.init] == [
                tmp_path / "runs" / "stream_content"
            ] and settings.steps == 5
    assert [part.path for part in settings.init] == [
        tmp_path / "runs" / name for name in ("stream_content", "stream")
    ]
    with pytest.raises(ConfigError, match="stream_content"):
        plan(tmp_path / "m.tsv", tmp_path / "x", tmp_path, overrides=["stream_contents.steps=5"])


def test_the_recipe_stops_where_something_went_wrong() -> None:
    steps = [Step("bridge", ("a",)), Step("labels", ("b",)), Step("stream", ("c",))]
    answers = {
        "bridge": (0, '{"reason": "finished"}'),
        "labels": (0, 'noise\n{"made": 3}'),
        "stream": (0, '{"reason": "interrupted"}'),
    }
    ran: list[str] = []

    def run(step: Step) -> tuple[int, str]:
        ran.append(step.name)
        return answers[step.name]

    said: list[str] = []
    with pytest.raises(TrainingError, match="stream of the recipe stopped early"):
        follow(steps, said.append, run)
    assert ran == ["bridge", "labels", "stream"] and said[1] == "2/3 labels: rtvc b"
    answers["stream"] = (0, '{"reason": "finished", "step": 4}')
    assert follow(steps, said.append, run)["stream"]["step"] == 4
    answers["labels"] = (2, "")
    ran.clear()
    with pytest.raises(TrainingError, match="code 2"):
        follow(steps, said.append, run)
    assert ran == ["bridge", "labels"]
    answers["labels"] = (0, "")
    with pytest.raises(TrainingError, match="no result"):
        follow(steps, said.append, run)


def test_a_command_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    code, printed = run_step(
        Step("show", ("train", "recipe", "m.tsv", "-o", "x.safetensors", "--dry-run", "--json"))
    )
    assert code == 0 and len(json.loads(printed)) == 9


def dial_run(
    folder: Path, stage: str, config: BaseModel, model: DialConverter, *parts: str
) -> Path:
    note = {"stage": stage, "step": "9", "config": json.dumps({"model": config.model_dump()})}
    states = {name: model.get_submodule(name).state_dict() for name in parts}
    save_weights(folder / "weights.safetensors", states, note)
    return folder


def test_runs_of_the_dial_become_one_model_in_eight_bits(tmp_path: Path) -> None:
    model = small()
    config = model.config
    units = dial_run(tmp_path / "units", "Units", config.encoder, small(), "encoder")
    # Stage `melody` knows nothing of the decoder's size.
    pitched = config.model_copy(update={"decoder_hidden": 48})
    melody = dial_run(tmp_path / "melody", "Melody", pitched, model, "pitch")
    rest = ("encoder", "decoder", "affine", "targets", "acoustic", "prosodic", *TIMBRE_PARTS)
    joint = dial_run(tmp_path / "joint", "Joint", config, model, *rest)
    path = export([units, melody, joint], tmp_path / "dial.safetensors")
    made = load_file(path, lookahead=12.5)
    assert isinstance(made, DialConverter) and made.config == config
    again = load_file(export([path], tmp_path / "again.safetensors"))
    for name, weight in model.state_dict().items():
        levels = 127 if weight.ndim > 1 and weight.numel() >= 4096 else 2**10
        step = weight.abs().max() / levels
        assert (made.state_dict()[name] - weight).abs().max() <= 0.57 * step + 1e-7, name
        assert torch.allclose(made.state_dict()[name], again.state_dict()[name], atol=1e-5), name
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["parts"])["encoder"] == "Joint step 9"
    assert load_weights(path)["encoder"].keys() == model.encoder.state_dict().keys()

    with pytest.raises(CheckpointError, match="a run that gives the decoder"):
        export([units, melody], tmp_path / "none.safetensors")
    other = config.encoder.model_copy(update={"fall": 600})
    late = dial_run(tmp_path / "late", "Units", other, model, "encoder")
    with pytest.raises(CheckpointError, match="different sizes"):
        export([melody, joint, late], tmp_path / "none.safetensors")
