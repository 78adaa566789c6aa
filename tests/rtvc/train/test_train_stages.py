"""Every stage on a tiny language: the loss falls, corrupt recordings are stepped over, and a run in
two parts equals one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rtvc.cli import main
from rtvc.models.checkpoints import load_converter
from rtvc.models.styletts2.discriminators import MultiPeriodDiscriminator, PeriodDiscriminator
from rtvc.train.config import load_config
from rtvc.train.loop import Outcome, Trainer
from rtvc.train.material import components
from rtvc.train.material.components import ModelConfig
from rtvc.train.registry import default_config, stage_type
from rtvc.train.stages.pitch import world_f0
from rtvc.train.state import Checkpoints, load_weights
from tests.support.train_runs import begin
from tests.support.train_speech import PITCH, PROSODY, make_corpus, spoken, tiny_config


def fit(name: str, config: Path, run: Path, *overrides: str, **how: Any) -> tuple[Trainer, Outcome]:
    trainer = begin(name, config, run, *overrides)
    return trainer, trainer.fit(**how)


def curve(run: Path, name: str) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


def weights(run: Path) -> dict[str, Any]:
    found = Checkpoints(run).latest()
    assert found is not None
    return {f"{m}.{n}": t for m, part in found[1]["modules"].items() for n, t in part.items()}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"), corrupt=1)


@pytest.fixture(scope="module")
def first_stage(tmp_path_factory: pytest.TempPathFactory, manifest: Path) -> Path:
    """A run of stage 1 that passes through its three parts: fixed aligner, adapting aligner,
    conversion."""
    folder = tmp_path_factory.mktemp("stage1")
    fit(
        "stage1",
        tiny_config(folder, manifest, steps=12, lr=5e-3),
        folder / "run",
        "aligner_from=4",
        "conversion_from=-2",
    )
    return folder / "run"


def test_pitch(tmp_path: Path, manifest: Path) -> None:
    pytest.importorskip("pyworld")
    config = tiny_config(
        tmp_path,
        manifest,
        "seconds = 0.5\ncache = 'labels'\n".replace("labels", str(tmp_path / "labels")),
        30,
        lr=6e-2,
    )
    trainer, outcome = fit("pitch", config, tmp_path / "run", "model.pitch_width=6")
    assert outcome.reason == "finished" and outcome.skipped == 0
    f0, voicing = curve(tmp_path / "run", "f0"), curve(tmp_path / "run", "voicing")
    assert f0[-1] < 0.8 * f0[0] and voicing[-1] < voicing[0]
    assert "5.wav" in (tmp_path / "run" / "remarks.txt").read_text()
    stage = trainer.stage
    with torch.no_grad():
        held_out, samples = stage.validate(30), stage.sample(30)
    assert held_out["f0"] == pytest.approx(f0[-1], rel=0.5)
    assert samples.audio["heard"].shape == (12_000,) and samples.mels[
        "found"
    ].shape == samples.mels["true"].shape == (80, 40)


def test_pitch_labels_are_the_speakers() -> None:
    pytest.importorskip("pyworld")
    for pitch in PITCH.values():
        wave = torch.from_numpy(spoken("aeo", pitch, np.random.default_rng(0))).float()
        f0 = world_f0(wave, 50, 800)
        assert f0.shape == (1 + len(wave) // 300,) and np.median(f0[f0 > 0]) == pytest.approx(
            pitch, rel=0.02
        )
    assert (world_f0(torch.zeros(12_000), 50, 800) == 0).all()


def test_aligner(tmp_path: Path, manifest: Path) -> None:
    config = tiny_config(tmp_path, manifest, steps=24, lr=8e-3)
    _, outcome = fit("aligner", config, tmp_path / "run")
    ctc, s2s = curve(tmp_path / "run", "ctc"), curve(tmp_path / "run", "s2s")
    assert outcome.reason == "finished" and ctc[-1] < 0.5 * ctc[0] and s2s[-1] < 0.8 * s2s[0]


def test_stage1_passes_through_its_parts(first_stage: Path) -> None:
    mel = curve(first_stage, "mel")
    assert mel[-1] < 0.8 * mel[0]
    lines = [json.loads(line) for line in (first_stage / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "monotonic" in line] == [6, 8, 10]
    assert [line["step"] for line in lines if "cycle" in line] == [12]
    assert "5.wav" in (first_stage / "remarks.txt").read_text()


def test_stage2_starts_from_stage1_and_learns(
    tmp_path: Path, manifest: Path, first_stage: Path
) -> None:
    config = tiny_config(
        tmp_path, manifest, f'[[init]]\npath = "{first_stage}"\n', steps=12, lr=5e-3
    )
    trainer, _ = fit("stage2", config, tmp_path / "run")
    mel, phonemes = curve(tmp_path / "run", "mel"), curve(tmp_path / "run", "phonemes")
    assert mel[-1] < 0.8 * mel[0] and phonemes[-1] < phonemes[0]
    taught = load_weights(first_stage)
    for name in ("text_encoder", "style_encoder", "decoder", "text_aligner", "pitch_extractor"):
        for key, tensor in trainer.stage.modules[name].state_dict().items():
            assert torch.equal(tensor, taught[name][key]), f"{name}.{key} is frozen"
    converter = load_converter(tmp_path / "run" / "weights.safetensors")
    wave = torch.from_numpy(spoken("aeiou nm", 110.0, np.random.default_rng(0))).float()[
        None, None, : 100 * 300
    ]
    with torch.no_grad():
        converted = converter.convert(wave, *converter.styles(wave))
    assert converted.shape == wave.shape and torch.isfinite(converted).all(), (
        "what stage 2 exports converts"
    )


def test_finetune_starts_from_stage2(tmp_path: Path, manifest: Path, first_stage: Path) -> None:
    config = tiny_config(
        tmp_path, manifest, f'seconds = 1.0\n[[init]]\npath = "{first_stage}"\n', steps=8, lr=5e-3
    )
    trainer, _ = fit("finetune", config, tmp_path / "run")
    mel = curve(tmp_path / "run", "mel")
    assert mel[-1] < mel[0]
    assert set(load_weights(tmp_path / "run")) == {
        "mel_encoder",
        "pitch_extractor",
        "style_encoder",
        "decoder",
    }
    assert torch.isfinite(torch.tensor(trainer.stage.validate(8)["mel"]))


def small_judge() -> MultiPeriodDiscriminator:
    judge = MultiPeriodDiscriminator(())
    judge.discriminators.append(PeriodDiscriminator(3, (4, 4)))
    return judge


def test_stage2_styletts2(
    tmp_path: Path, manifest: Path, first_stage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtvc.train.stages.stage2_styletts2.MultiPeriodDiscriminator", small_judge)
    monkeypatch.setattr(
        "rtvc.train.stages.stage2_styletts2.MultiResolutionDiscriminator", small_judge
    )
    wanted = ("text_encoder", "style_encoder", "text_aligner", "pitch_extractor")
    pairs = ", ".join(f'{name} = "{name}"' for name in wanted)
    extra = f'[[init]]\npath = "{first_stage}"\nmodules = {{ {pairs} }}\n'
    config = tiny_config(tmp_path, manifest, extra, steps=8, lr=3e-3)
    config.write_text(config.read_text() + PROSODY)
    first = begin(
        "stage2_styletts2",
        config,
        tmp_path / "run",
        "diffusion_from=2",
        "joint_from=4",
        "longest_piece=90",
    )
    before = {
        name: tensor.clone() for name, tensor in load_weights(first_stage)["style_encoder"].items()
    }
    first.begin(resume=True)
    prosodic = first.stage.modules["predictor_encoder"].state_dict()
    assert all(torch.equal(prosodic[name], tensor) for name, tensor in before.items()), (
        "starts as a copy of the acoustic one"
    )
    trainer, outcome = fit(
        "stage2_styletts2",
        config,
        tmp_path / "run",
        "diffusion_from=2",
        "joint_from=4",
        "longest_piece=90",
    )
    assert outcome.reason == "finished" and outcome.skipped == 0
    duration, digits = (
        curve(tmp_path / "run", "duration"),
        curve(tmp_path / "run", "duration_digits"),
    )
    assert duration[-1] < duration[0] and digits[-1] < digits[0]
    lines = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in lines if "diffusion" in line] == [4, 6, 8]
    saved = load_weights(tmp_path / "run")
    for name, tensor in saved["diffusion"].items():
        if name.startswith("unet."):
            assert torch.equal(
                tensor, saved["diffusion"][name.replace("unet.", "diffusion.net.", 1)]
            ), "one average under both names"
    assert saved["deviation"]["mean"] != 0.2
    for module in trainer.stage.modules.values():
        module.eval()
    with torch.no_grad():
        assert set(trainer.stage.validate(8)) == {"mel", "duration", "f0"}
        assert (
            trainer.stage.sample(8).audio["made"].shape
            == trainer.stage.sample(8).audio["true"].shape
        )


@pytest.mark.parametrize("name", ["aligner", "stage1"])
def test_parts_equal_the_whole(tmp_path: Path, manifest: Path, name: str) -> None:
    config = tiny_config(tmp_path, manifest, steps=4)
    settings = ("aligner_from=1", "conversion_from=3") if name == "stage1" else ()
    fit(name, config, tmp_path / "whole", *settings)
    for _ in range(2):
        fit(name, config, tmp_path / "parts", *settings, max_steps=2)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for key, tensor in whole.items():
        assert torch.equal(tensor, parts[key]), key


def test_samples_and_measurements(tmp_path: Path, manifest: Path) -> None:
    config = tiny_config(tmp_path, manifest, steps=1)
    for name in ("aligner", "stage1", "stage2", "finetune"):
        stage = begin(name, config, tmp_path / name).stage
        for module in stage.modules.values():
            module.eval()
        with torch.no_grad():
            samples, values = stage.sample(0), stage.validate(0)
        assert values and all(isinstance(value, float) for value in values.values())
        assert samples.mels and all(
            torch.isfinite(mel.float()).all() and mel.ndim == 2 for mel in samples.mels.values()
        )
        assert all(wave.ndim == 1 and torch.isfinite(wave).all() for wave in samples.audio.values())


def test_the_command(tmp_path: Path, manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_config(tmp_path, manifest, steps=3)
    command = ["train", "aligner", str(config), "--run", str(tmp_path / "run")]
    assert main([*command, "--max-steps", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reason"] == "max_steps"
    assert main([*command, "--set", "log.every=1"]) == 0
    said = capsys.readouterr()
    assert "finished at step 3" in said.out and "resuming at step 1" in said.err
    assert main([*command, "--set", "optimiser.lr=1"]) == 2
    assert "did you mean 'optimizer'" in capsys.readouterr().err
    assert main(["train", "alligner", str(config)]) == 2
    assert "did you mean 'aligner'" in capsys.readouterr().err
    untold = make_corpus(tmp_path)
    untold.write_text("path\tspeaker\n0.wav\tanna\n")
    assert main([*command, "--fresh", "--set", f"data.manifest={untold}"]) == 2
    assert "rtvc data prepare" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["pitch", "aligner", "stage1", "stage2", "stage2_styletts2", "finetune"]
)
def test_the_shipped_recipes_are_valid(name: str) -> None:
    kind: Any = stage_type(name)
    config = load_config(kind.config_type, default_config(name))
    phases = {"pitch": ("pitch",), "aligner": ("aligner",)}.get(
        name, ("discriminator", "generator")
    )
    assert all(config.optimizer_of(phase).lr == config.optimizer.lr for phase in phases)


def test_published_sizes_are_the_defaults() -> None:
    config = ModelConfig()
    with torch.device("meta"):
        made = [
            components.mel_encoder(config),
            components.linear_projection(config),
            components.text_encoder(config),
            components.style_encoder(config),
            components.discriminator(config, 108),
            components.decoder(config),
            components.pitch_extractor(config),
            components.text_aligner(config),
        ]
    assert sum(p.numel() for module in made for p in module.parameters()) == 83_740_087


def test_bfloat16(tmp_path: Path, manifest: Path) -> None:
    config = tiny_config(tmp_path, manifest, "seconds = 1.2\n", steps=2)
    for name, settings in (
        ("stage1", ("aligner_from=0", "conversion_from=1")),
        ("stage2", ()),
        ("finetune", ()),
    ):
        _, outcome = fit(name, config, tmp_path / name, "precision=bfloat16", *settings)
        assert outcome.skipped == 0 and all(np.isfinite(value) for value in outcome.losses.values())
