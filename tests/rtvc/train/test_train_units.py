"""The stages on units, on a few seconds of labelled speech: losses fall, runs go on identically,
every part learns."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from rtvc.audio.mel import BANDS
from rtvc.errors import CheckpointError, ConfigError
from rtvc.models.streaming.assets import save_file
from rtvc.train.config import load_config
from rtvc.train.loop import Trainer
from rtvc.train.registry import default_config, stage_type
from rtvc.train.state import load_weights
from rtvc.train.streaming import joint
from rtvc.train.streaming.melody import Melody
from rtvc.train.streaming.units import effective_rank, same_speaker_nearest
from tests.rtvc.train.test_train_stream import curve, falls, whole_state
from tests.support.small_models import small_converter
from tests.support.stream_stages import Stand
from tests.support.told_melody import told_melody
from tests.support.train_runs import begin, labelled_settings, run_settings
from tests.support.unit_speech import make_unit_speech

ENCODER = "hidden = 16\ndilations = [1, 2]\ncontent = 8\n"
SIZES = {
    "units": f"grow = false\n[model]\n{ENCODER}",
    "judge": "[model]\nhidden = 20\ndilations = [1, 2]\nattention = [2]\n",
    "phonemes": "",
    "melody": "high = 0.3\n[model]\npitch_hidden = 16\npitch_dilations = [1, 2]\n",
    "joint": (
        "[judge]\nhidden = 20\ndilations = [1, 2]\nattention = [2]\n[model]\ndecoder_hidden ="
        " 16\ndecoder_dilations = [1, 2]\nacoustic_hidden = 8\nprosodic_hidden = 8\ntimbre ="
        f" [1]\ntokens = 4\n[model.encoder]\n{ENCODER}"
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_unit_speech(tmp_path_factory.mktemp("labelled") / "units")


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joint, "SpeakerEncoder", Stand)
    monkeypatch.setattr(joint, "LISTENED", (0, 2))


def trainer(
    name: str, folder: Path, run: Path, steps: int, lr: float, *overrides: str, top: str = ""
) -> Trainer:
    """A stage at a size that trains in seconds."""
    run.parent.mkdir(exist_ok=True, parents=True)
    file = run.with_suffix(".toml")
    first, _, rest = SIZES[name].partition("[")
    file.write_text(
        run_settings(steps, lr, validate_every=10, top=top + first)
        + labelled_settings(folder, held_out=3)
        + ("[" + rest if rest else "")
    )
    return begin(name, file, run, *overrides)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    path = tmp_path_factory.mktemp("runs")
    trainer("units", folder, path / "units", 60, 1e-2).fit()
    trainer("judge", folder, path / "judge", 40, 1e-2).fit()
    return path


def test_units_are_learnt_at_every_setting(runs: Path) -> None:
    assert falls(curve(runs / "units", "units"), 0.6) and falls(
        curve(runs / "units", "phonemes"), 0.6
    )
    for lookahead in (0, 1, 2, 4, 8):
        assert curve(runs / "units", f"metric/units_right_{lookahead}")[-1] > 0.5
        assert curve(runs / "units", f"valid/units_right_{lookahead}")[-1] > 0.5
    assert 1 < curve(runs / "units", "valid/rank")[-1] < 8
    assert 0 <= curve(runs / "units", "valid/speaker_nearest")[-1] <= 1
    assert "cut_off.npz" in (runs / "units" / "remarks.txt").read_text()
    assert (
        falls(curve(runs / "judge", "units"), 0.7)
        and curve(runs / "judge", "valid/units_right")[-1] > 0.5
    )


@pytest.mark.parametrize("name", ["units", "judge"])
def test_a_stage_goes_on_identically(tmp_path: Path, folder: Path, name: str) -> None:
    trainer(name, folder, tmp_path / "whole", 6, 1e-2).fit()
    trainer(name, folder, tmp_path / "parts", 6, 1e-2).fit(max_steps=3)
    trainer(name, folder, tmp_path / "parts", 6, 1e-2).fit()
    whole, parts = whole_state(tmp_path / "whole"), whole_state(tmp_path / "parts")
    assert whole.keys() == parts.keys() and all(
        torch.equal(whole[key], parts[key]) for key in whole
    )


def test_the_converter_learns_and_every_part_of_it_moves(
    tmp_path: Path, folder: Path, runs: Path
) -> None:
    top = f'init = [{{ path = "{runs / "units"}" }}, {{ path = "{runs / "judge"}" }}]\n'
    made = trainer(
        "joint", folder, tmp_path / "joint", 30, 3e-3, "data.frames=48", "data.batch=2", top=top
    )
    made.begin(resume=False)
    modules, parts = made.stage.modules, made.stage.phases["converter"]
    before = {part: [value.clone() for value in modules[part].parameters()] for part in parts}
    judge = [value.clone() for value in modules["judge"].parameters()]
    made.fit()
    heard_out = curve(tmp_path / "joint", "valid/stft")
    assert heard_out[-1] < 0.9 * heard_out[0]
    assert {"words", "listening", "foreign", "prosody", "units", "metric/leak"} <= curves(
        tmp_path / "joint"
    )
    for part in parts:
        pairs = zip(modules[part].parameters(), before[part], strict=True)
        assert not all(torch.equal(new, old) for new, old in pairs), f"{part} did not learn"
    assert all(
        torch.equal(new, old) for new, old in zip(modules["judge"].parameters(), judge, strict=True)
    )
    assert {"encoder", "decoder", "affine", "memory", "acoustic"} <= set(
        load_weights(tmp_path / "joint")
    )


def test_a_converter_that_has_learnt_grows_new_parts(
    tmp_path: Path, folder: Path, runs: Path
) -> None:
    top = f'init = [{{ path = "{runs / "units"}" }}, {{ path = "{runs / "judge"}" }}]\n'
    bare, grown = ("joint", folder, tmp_path / "bare", 2, 1e-3), "model.timbre=[1, 2]"
    trainer(*bare, "model.timbre=[]", top=top).fit()
    again = f'init = [{{ path = "{tmp_path / "bare"}" }}, {{ path = "{runs / "judge"}" }}]\n'
    with pytest.raises(CheckpointError, match="missing: timbre"):
        trainer("joint", folder, tmp_path / "refused", 2, 1e-3, grown, top=again).fit()
    more = again.replace('bare" }', 'bare", grow = true }')
    made = trainer("joint", folder, tmp_path / "more", 2, 1e-3, grown, top=more)
    made.begin(resume=False)
    weights, decoder = load_weights(tmp_path / "bare"), made.stage.modules["decoder"].state_dict()
    assert all(torch.equal(decoder[name], value) for name, value in weights["decoder"].items())
    assert not decoder["timbre.2.out.weight"].any()
    made.fit()


def test_an_encoder_grows_by_blocks_that_add_nothing_yet(
    tmp_path: Path, folder: Path, runs: Path
) -> None:
    top = f'init = [{{ path = "{runs / "units"}", grow = true }}]\n'
    deeper = "model.dilations=[1, 2, 4]"
    made = trainer("units", folder, tmp_path / "deeper", 2, 1e-2, deeper, top=top)
    made.begin(resume=False)
    old = trainer("units", folder, tmp_path / "old", 2, 1e-2, top=top)
    old.begin(resume=False)
    before, after = (trainer.stage.modules["encoder"].eval() for trainer in (old, made))
    mel = torch.randn(1, BANDS, 30, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(before.contents(mel, (1,))[0], after.contents(mel, (1,))[0])
    made.fit()
    assert any(p.any() for p in after.trunk.streaming_layers()[-1].out.parameters())


def test_the_melody_is_learnt_up_to_sung_notes(tmp_path: Path, folder: Path) -> None:
    trainer("melody", folder, tmp_path / "melody", 90, 1e-2, "warm=8").fit()
    for loss in ("valid/f0", "valid/voicing"):
        values = curve(tmp_path / "melody", loss)
        assert values[-1] < 0.9 * values[0], loss
    assert {"valid/within_a_semitone", "valid/voicing_right"} <= curves(tmp_path / "melody")


def curves(run: Path) -> set[str]:
    """The names of everything that a run logged."""
    return {
        name
        for line in (run / "metrics.jsonl").read_text().splitlines()
        for name in json.loads(line)
    }


def test_a_melody_that_its_teacher_cannot_hear_is_learnt_from_the_labels(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = save_file(small_converter(), tmp_path / "first.safetensors")
    monkeypatch.setattr("rtvc.train.material.first.FIRST", first)
    stage = trainer("melody", folder, tmp_path / "melody", 2, 1e-3, "taught=first").stage
    assert isinstance(stage, Melody)
    batch = stage.batch(0)
    sung = torch.zeros_like(batch["log_f0"], dtype=torch.bool)
    sung[:, 10:20] = True
    batch["log_f0"] = torch.where(sung, math.log(700), math.log(200))
    told = stage.told(batch)
    assert all(torch.equal(told[name][sung], batch[name][sung]) for name in ("log_f0", "voiced"))
    assert not (told["log_f0"][~sung] == batch["log_f0"][~sung]).any()
    assert told["log_f0"][~sung].max() <= math.log(600) + 1e-3


def test_the_decoder_may_be_told_the_melody_that_a_stream_tells_it(
    tmp_path: Path, folder: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer("melody", folder, tmp_path / "melody", 3, 1e-3).fit()
    inits = [f'{{ path = "{path}" }}' for path in (runs / "units", runs / "judge")]
    small = ["data.frames=48", "data.batch=2", "melody=network"]
    small += ["model.pitch_hidden=16", "model.pitch_dilations=[1, 2]"]

    def joint_of(run: str, *more: str) -> Trainer:
        top = f"init = [{', '.join([*inits, *more])}]\n"
        return trainer("joint", folder, tmp_path / run, 2, 1e-3, *small, top=top)

    with pytest.raises(ConfigError, match=r"gives no pitch.*melody"):
        joint_of("refused").begin(resume=False)
    made = joint_of("joint", f'{{ path = "{tmp_path / "melody"}" }}')
    made.begin(resume=False)
    stage = made.stage
    assert isinstance(stage, joint.Joint)
    batch = stage.batch(0)
    told = stage.told(batch, 0)
    model, wave = stage.model, batch["wave"][:, None]
    features, _ = model.analysis(wave, model.analysis.initial(2))
    melody, _ = model.pitch(features[:, BANDS:], model.pitch.initial(2))
    torch.testing.assert_close(told["log_f0"], melody[:, 0].float())
    torch.testing.assert_close(told["voiced"], melody[:, 1].float())
    assert told["reference_f0"].shape == batch["reference_f0"].shape
    for lookahead in (0, 1, 2):
        model.set_lookahead(lookahead)
        with torch.no_grad():
            streams = told_melody(model, wave, monkeypatch)
        told = stage.told(batch, lookahead)
        for streamed, name in zip(streams, ("log_f0", "voiced"), strict=True):
            torch.testing.assert_close(
                streamed[:, lookahead:].float(), told[name][:, : streamed.shape[1] - lookahead]
            )
    told = stage.told(batch, 0)
    assert not torch.equal(told["log_f0"], batch["log_f0"])
    before = [value.clone() for value in model.pitch.parameters()]
    made.fit()
    assert all(map(torch.equal, before, model.pitch.parameters()))


def test_what_is_restored_may_be_heard_of_its_conversion(
    tmp_path: Path, folder: Path, runs: Path
) -> None:
    top = f'init = [{{ path = "{runs / "units"}" }}, {{ path = "{runs / "judge"}" }}]\n'
    small = ["data.frames=48", "data.batch=4", "cycle=0.5"]
    made = trainer("joint", folder, tmp_path / "joint", 4, 1e-3, *small, top=top)
    made.begin(resume=False)
    stage = made.stage
    assert isinstance(stage, joint.Joint)
    batch = stage.batch(0)
    content = stage.encode(batch, 1).content
    wave = stage.target(batch).requires_grad_()
    mixed = stage.content_of_conversion(wave, content, 1)
    assert torch.equal(mixed[2:], content[2:])
    # The recording itself in the conversion's place: what is heard of it is what is heard of it.
    torch.testing.assert_close(
        mixed[:2, :, :40], stage.encode(batch | {"source": batch["wave"]}, 1).content[:2, :, :40]
    )
    assert not torch.equal(mixed[:2], content[:2])  # which comes through another microphone
    mixed[:2].sum().backward()
    assert wave.grad is None  # the decoder is not asked to please the encoder
    assert all(each.grad is not None for each in stage.model.encoder.out.parameters())
    made.fit()


@pytest.mark.parametrize("seen, resolutions", [("[0, 2]", "[[512, 128, 512]]"), ("[]", "[]")])
def test_discriminators_learn_first_and_then_are_minded(
    tmp_path: Path, folder: Path, runs: Path, seen: str, resolutions: str
) -> None:
    top = f'init = [{{ path = "{runs / "units"}" }}, {{ path = "{runs / "judge"}" }}]\n'
    small = [
        "data.frames=64",
        "data.batch=2",
        "warm=8",
        "shown=16",
        f"spectra.resolutions={resolutions}",
        "spectra.channels=4",
        "spectra.rows=1",
        "head_start=4",
        f"seen={seen}",
        "log.every=1",
    ]
    made = trainer(
        "joint",
        folder,
        tmp_path / "joint",
        8,
        1e-3,
        *small,
        "weights.adversarial=0.2",
        "adversarial_from=2",
        top=top,
    )
    made.fit()
    lines = [
        json.loads(line) for line in (tmp_path / "joint" / "metrics.jsonl").read_text().splitlines()
    ]
    steps = {
        name: [line["step"] for line in lines if name in line]
        for name in ("discriminator", "adversarial", "features")
    }
    assert steps == {"discriminator": [3, 4, 5, 6, 7, 8], "adversarial": [7, 8], "features": [7, 8]}
    assert made.stepper.skipped == 0


def test_the_likeness_to_the_source_reaches_the_converter_where_it_has_a_weight(
    tmp_path: Path, folder: Path, runs: Path
) -> None:
    top = f'init = [{{ path = "{runs / "units"}" }}, {{ path = "{runs / "judge"}" }}]\n'
    settings = ("data.frames=48", "data.batch=2", "log.every=1", "weights.foreign=0")
    parts = []
    for name, leak in (("logged", 0), ("weighed", 3)):
        made = trainer(
            "joint", folder, tmp_path / name, 1, 1e-3, *settings, f"weights.leak={leak}", top=top
        )
        made.fit()
        parts.append(made.stage.modules["decoder"].state_dict())
    assert "leak" in curves(tmp_path / "weighed") and "leak" not in curves(tmp_path / "logged")
    assert not all(torch.equal(parts[0][key], parts[1][key]) for key in parts[0])


def test_a_judge_that_nobody_trained_is_refused(tmp_path: Path, folder: Path, runs: Path) -> None:
    top = f'init = [{{ path = "{runs / "units"}" }}]\n'
    with pytest.raises(ConfigError, match="gives no judge"):
        trainer("joint", folder, tmp_path / "joint", 2, 1e-3, top=top).fit()


@pytest.mark.parametrize("name", ["units", "judge", "phonemes", "joint", "melody"])
def test_the_recipes_are_valid(name: str) -> None:
    kind: Any = stage_type(name)
    assert load_config(kind.config_type, default_config(name)).steps > 0


def test_rank_counts_directions_and_the_probe_finds_speakers() -> None:
    generator = torch.Generator().manual_seed(0)
    assert effective_rank(torch.randn(5000, 6, generator=generator)) == pytest.approx(6, abs=0.05)
    assert effective_rank(
        torch.randn(100, 1, generator=generator) @ torch.ones(1, 6)
    ) == pytest.approx(1, abs=1e-6)
    means = torch.tensor([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]])
    assert same_speaker_nearest(means, ["a", "a", "b", "b"]) == 1.0
    assert same_speaker_nearest(means, ["a", "b", "a", "b"]) == 0.0
