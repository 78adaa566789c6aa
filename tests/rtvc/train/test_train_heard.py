"""What Whisper itself hears in a wave, as a loss: the same spectrum, the same units, gradients to
the wave, and a converter that learns by it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rtvc.audio.mel import SAMPLE_RATE
from rtvc.audio.resample import resample
from rtvc.teacher.whisper import RATE, WIDTH, WhisperEncoder
from rtvc.train.losses import heard_units
from rtvc.train.losses.heard_units import HeardUnits
from rtvc.train.material.units import LAYERS, Codebook, cluster
from rtvc.train.streaming import joint
from tests.rtvc.train.test_train_stream import curve
from tests.rtvc.train.test_train_units import folder, runs, trainer
from tests.support.stream_stages import Stand

__all__ = ["folder", "runs"]


def voice(hertz: float, seconds: float = 1.0) -> torch.Tensor:
    """A vowel-like sound that moves."""
    time = torch.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    phase = 2 * torch.pi * hertz * (time + 0.03 * torch.sin(9 * time))
    wave: torch.Tensor = sum(torch.sin(k * phase) / k for k in range(1, 12))  # type: ignore[assignment]
    return 0.2 * wave * (1 + torch.sin(20 * time)) / 2


@pytest.fixture(scope="module")
def listener() -> HeardUnits:
    """At random weights, which hear something and not the same in everything."""
    torch.manual_seed(3)
    encoder = WhisperEncoder().eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.ndim > 1:
                parameter.mul_(1.5)
    bare = HeardUnits(Codebook(*(torch.zeros(2, 1, 1) for _ in range(3))), encoder)
    waves = torch.stack([voice(hertz) for hertz in (90, 130, 200, 280)])
    with torch.no_grad():
        layers = torch.stack(encoder(bare.mel(waves), LAYERS))
    return HeardUnits(cluster([layers.flatten(1, 2)], clusters=20), encoder)


def test_the_spectrum_is_whispers_without_resampling(listener: HeardUnits) -> None:
    features = pytest.importorskip(
        "faster_whisper.feature_extractor", reason="the [train] extra is not installed"
    )
    wave = voice(150) + 0.01 * torch.randn(SAMPLE_RATE, generator=torch.Generator().manual_seed(1))
    theirs = features.FeatureExtractor()(resample(wave.numpy(), SAMPLE_RATE, RATE), padding=0)
    ours = listener.mel(wave[None])[0].numpy()
    assert ours.shape == theirs.shape == (80, 100)
    # the ends are padded at another rate, and a resampler fades the highest bands
    inner = np.s_[:76, 3:-3]
    assert np.abs(ours[inner] - theirs[inner]).mean() < 0.001
    assert theirs.std() > 0.2


def test_a_wave_agrees_with_itself_and_another_teaches(listener: HeardUnits) -> None:
    wave, other = voice(130)[None], voice(90)[None].requires_grad_()
    same = listener.losses(wave, wave)
    assert same["metric/heard_units"] == 1
    heard = listener.losses(other, wave, warm=2_400)
    assert heard["heard"] > 1.2 * same["heard"] and heard["metric/heard_units"] < 0.9
    heard["heard"].backward()
    assert other.grad is not None and other.grad.isfinite().all()
    assert other.grad[:, 6_000:].abs().mean() > 0
    nearer = (other - 0.02 * other.grad / other.grad.abs().max()).detach()
    assert listener.losses(nearer, wave, warm=2_400)["heard"] < heard["heard"]


def test_a_unit_is_the_nearest_cluster(
    listener: HeardUnits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heard_units, "BELIEVED", 1e9)
    codebook = Codebook(listener.mean[:, 0], listener.deviation[:, 0], listener.centroids)
    wave = voice(200)[None]
    with torch.no_grad():
        padded = torch.nn.functional.pad(wave, (0, SAMPLE_RATE // 2))
        layers = torch.cat(listener.encoder(listener.mel(padded), LAYERS))
        logits = listener(wave)
    assert layers.shape == (2, 75, WIDTH)
    assert torch.equal(torch.cat([x.argmax(1) for x in logits]), codebook.units(layers[:, :50]))


def test_the_converter_learns_by_what_whisper_hears(
    tmp_path: Path, folder: Path, runs: Path, listener: HeardUnits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joint, "SpeakerEncoder", Stand)
    monkeypatch.setattr(joint, "HeardUnits", lambda _: listener)
    codebook = tmp_path / "codebook.safetensors"
    Codebook(listener.mean[:, 0], listener.deviation[:, 0], listener.centroids).save(codebook)
    top = f'init = [{{ path = "{runs / "units"}" }}]\ncodebook = "{codebook}"\n'
    settings = ("data.frames=48", "data.batch=2", "log.every=1", "train_encoder=false")
    # no judge of our own is needed where Whisper listens
    only = [f"weights.{name}=0" for name in ("words", "listening", "foreign", "stft", "prosody")]
    weights = [*only, "weights.heard=1", "data.warp=0", "without_tokens=0"]
    made = trainer("joint", folder, tmp_path / "joint", 30, 3e-3, *settings, *weights, top=top)
    made.fit()
    assert "judge" not in made.stage.modules
    heard = curve(tmp_path / "joint", "valid/heard")
    assert heard[-1] < heard[0]
    assert not any(p.requires_grad for p in made.stage.modules["heard"].parameters())
