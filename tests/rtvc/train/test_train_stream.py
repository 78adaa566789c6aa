"""The stages of the streaming model on a few seconds of labelled speech: losses fall, switches
switch, runs go on identically."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rtvc.models.streaming.model import StreamingConfig, StreamingConverter
from rtvc.train.state import Checkpoints, load_weights
from rtvc.train.streaming import stream
from rtvc.train.streaming.stream_config import PARTS
from tests.support.small_models import SIZES
from tests.support.stream_stages import Stand, config
from tests.support.train_runs import begin


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SpeakerEncoder", Stand)


def curve(run: Path, name: str) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


def whole_state(run: Path) -> dict[str, torch.Tensor]:
    found = Checkpoints(run).latest()
    assert found is not None
    return {f"{m}.{n}": t for m, part in found[1]["modules"].items() for n, t in part.items()}


def falls(values: list[float], share: float) -> bool:
    third = max(1, len(values) // 3)
    return sum(values[-third:]) < share * sum(values[:third])


def test_content_learns_and_tells_bad_files(content_run: Path) -> None:
    assert falls(curve(content_run, "content"), 0.8) and falls(curve(content_run, "phonemes"), 0.8)
    assert curve(content_run, "metric/phonemes_right")[-1] > 0.5
    assert "leak" in json.loads((content_run / "metrics.jsonl").read_text().splitlines()[0])
    assert "cut_off.npz" in (content_run / "remarks.txt").read_text()
    encoder = StreamingConverter(StreamingConfig(**SIZES)).encoder  # type: ignore[arg-type]
    encoder.load_state_dict(load_weights(content_run)["encoder"])


def test_content_goes_on_identically(tmp_path: Path, folder: Path) -> None:
    file = config(tmp_path, folder, 6)
    begin("stream_content", file, tmp_path / "whole").fit()
    begin("stream_content", file, tmp_path / "parts").fit(max_steps=3)
    begin("stream_content", file, tmp_path / "parts").fit()
    whole, parts = whole_state(tmp_path / "whole"), whole_state(tmp_path / "parts")
    assert whole.keys() == parts.keys() and all(
        torch.equal(whole[name], parts[name]) for name in whole
    )


def test_content_is_aligned_with_its_labels(tmp_path: Path, folder: Path) -> None:
    """Frame t of what is found has heard exactly up to its declared look-ahead."""
    made: Any = begin("stream_content", config(tmp_path, folder), tmp_path / "run").stage
    made.encoder.eval()
    with torch.no_grad():
        assert set(made.validate(0)) == {"content", "phonemes", "phonemes_right", "content_exact"}
        assert made.sample(0).mels["found"].shape == (128, 64)
    wave = torch.randn(1, 64 * 300, generator=torch.Generator().manual_seed(0)) * 0.1
    changed = wave.clone()
    changed[:, 40 * 300 :] = 0
    differs = (made.predicted(wave)[0] - made.predicted(changed)[0]).abs().amax((0, 1)) > 1e-6
    first = int(differs.nonzero()[0])
    assert first == 40 - 2, (
        "it hears half a window, two frames and one frame of look-ahead: up to sample (t + 3) * 300"
    )


def test_pitch_learns(tmp_path: Path, folder: Path) -> None:
    file = config(tmp_path, folder, 90, lr=1e-2)
    made = begin("stream_pitch", file, tmp_path / "run", "data.warp=0.4", "warm=8")
    made.fit()
    run = tmp_path / "run"
    assert falls(curve(run, "f0"), 0.8) and falls(curve(run, "voicing"), 0.9)
    right = curve(run, "metric/voicing_right")
    assert sum(right[-9:]) / 9 > 0.8
    net = StreamingConverter(StreamingConfig(**SIZES)).pitch  # type: ignore[arg-type]
    net.load_state_dict(load_weights(run)["pitch"])
    with torch.no_grad():
        assert set(made.stage.validate(0)) == {
            "f0",
            "voicing",
            "within_a_semitone",
            "voicing_right",
        }
        assert made.stage.sample(0).mels["bins"].shape[0] == 128


def test_stream_learns_from_what_the_encoder_hears(
    tmp_path: Path, folder: Path, content_run: Path
) -> None:
    init = f'init = [{{path = "{content_run}"}}]\nconsistency_from = 0\nreference_frames = 96'
    made = begin(
        "stream",
        config(tmp_path, folder, 30, 5e-3, "matching = 0.3\nforeign = 0.1", init),
        tmp_path / "run",
    )
    made.fit()
    run = tmp_path / "run"
    assert (
        falls(curve(run, "stft"), 0.8)
        and falls(curve(run, "prosody"), 0.9)
        and falls(curve(run, "embedding"), 0.8)
    )
    assert len(curve(run, "matching")) == len(curve(run, "foreign")) == 7, (
        "where the encoder is heard, in even steps"
    )
    assert len(curve(run, "consistency")) == 15
    exported = load_weights(run)
    assert set(exported) == set(PARTS)
    model = StreamingConverter(StreamingConfig(**SIZES))  # type: ignore[arg-type]
    for name, weights in exported.items():
        getattr(model, name).load_state_dict(weights)
    untouched = load_weights(content_run)["encoder"]
    encoder = made.stage.modules["encoder"].state_dict()
    assert all(torch.equal(untouched[name], encoder[name]) for name in untouched), (
        "the encoder stays as it was"
    )
    steady, start = made.stage.modules["steady"].state_dict(), whole_state(run)
    assert any(
        not torch.equal(steady[f"decoder.{n}"], start[f"decoder.{n}"])
        for n in model.decoder.state_dict()
    )
    with torch.no_grad():
        values = made.stage.validate(0)
        sample = made.stage.sample(0)
    assert (
        set(values) == {"stft", "stft_labels", "similarity", "similarity_labels"}
        and values["stft"] < 5
    )
    assert set(sample.audio) == set(sample.mels) == {"true", "made", "converted"}
    assert not torch.equal(sample.audio["made"], sample.audio["converted"])


def test_stream_against_a_discriminator_goes_on_identically(tmp_path: Path, folder: Path) -> None:
    top = (
        "labels_every = 2\ntrain_encoder = true\nadversarial_from = 2\nreference_frames ="
        " 48\nprecision = 'bfloat16'"
    )
    weights = "adversarial = 0.1\nconsistency = 0.0\nembedding = 0.0"
    top += (
        "\ndiscriminator = {rows = 2, channels = 4, power = 0.3, resolutions = [[512, 128, 512]]}"
    )
    file = config(tmp_path, folder, 4, weights=weights, top=top)
    file.write_text(file.read_text().replace("frames = 64\nheld", "frames = 24\nheld"))
    begin("stream", file, tmp_path / "whole").fit()
    begin("stream", file, tmp_path / "parts").fit(max_steps=3)
    begin("stream", file, tmp_path / "parts").fit()
    whole, parts = whole_state(tmp_path / "whole"), whole_state(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole) and not any(
        name.startswith("speaker.") for name in whole
    )
    first, last = (
        json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    )
    assert "discriminator" not in first and {"discriminator", "adversarial", "features"} <= set(
        last
    )
    fresh = begin("stream", file, tmp_path / "fresh").stage.modules["encoder"].state_dict()
    assert any(not torch.equal(fresh[name], whole[f"encoder.{name}"]) for name in fresh), (
        "the encoder learns as well"
    )
    assert set(load_weights(tmp_path / "whole")) == {*PARTS, "encoder"}


def test_the_encoder_learns_from_another_speakers_version(
    tmp_path: Path, folder: Path, content_run: Path
) -> None:
    top = (
        "train_encoder = true\nlabels_every = 2\nreference_frames = 48\n"
        "heard_as = {shift = 1.0, shift_semitones = [3, 5], noise = 0, room = 0, equalise = 0, "
        "low_pass = 0, codec = 0, mu_law = 0, clip = 0}"
    )
    weights, init = "embedding = 0.0\nconsistency = 0.0", f'init = [{{path = "{content_run}"}}]\n'
    made: Any = begin(
        "stream", config(tmp_path, folder, 4, weights=weights, top=init + top), tmp_path / "run"
    ).stage
    batch = made.batch(1)
    assert batch["source"].shape == batch["wave"].shape and all(
        torch.equal(batch[n], made.batch(1)[n]) for n in ("source", "wave")
    )
    source, wave = (torch.fft.rfft(batch[name]).abs() ** 2 for name in ("source", "wave"))
    bins = torch.arange(wave.shape[1])
    centres = [(power * bins).sum() / power.sum() for power in (source, wave)]
    assert centres[0] > 1.1 * centres[1], "what is heard is a higher voice"
    losses = made.losses("generator", batch, 1)
    assert torch.equal(batch["target"], made.target(batch["wave"])), (
        "what is restored is the voice as it was"
    )
    weight = made.modules["encoder"].out.weight
    for name in ("stft", "content"):
        assert torch.autograd.grad(losses[name], weight, retain_graph=True)[0].abs().max() > 0, name
    assert "content" not in made.losses("generator", made.batch(2), 2), (
        "labels are nothing that the encoder heard"
    )
