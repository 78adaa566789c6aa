"""The losses of the streaming stages, and what they need."""

from typing import Any

import pytest
import torch

from rtvc.audio.spectral import BandedSTFT
from rtvc.errors import DependencyError
from rtvc.models.streaming.model import StreamingConfig
from rtvc.train.config import load_config
from rtvc.train.losses import speaker
from rtvc.train.losses.prosody_targets import low_passed, prosody_of
from rtvc.train.losses.speaker_leak import SpeakerClassifier
from rtvc.train.registry import STAGES, default_config, stage_type


def test_the_recipes_parse() -> None:
    for name in ("stream_content", "stream_pitch", "stream", "stream_joint"):
        assert name in STAGES
        kind: Any = stage_type(name)
        settings = load_config(kind.config_type, default_config(name))
        assert settings.model == StreamingConfig(), "the recipe makes what is shipped"


def test_band_limits() -> None:
    generator = torch.Generator().manual_seed(0)
    wave = torch.randn(2, 9600, generator=generator) * 0.1
    low = low_passed(wave, torch.tensor([4000.0, 13_000.0]))
    assert torch.allclose(low[1], wave[1], atol=1e-5)
    spectrum = torch.fft.rfft(low[0]).abs()
    assert spectrum[1600:].max() < 1e-3 < spectrum[:1600].max()
    loss = BandedSTFT()
    cutoff = torch.tensor([3500.0, 3500.0])
    assert loss(wave, wave, cutoff) < 1e-6
    near, far = (
        loss(low_passed(wave, cutoff + 1000), wave, cutoff),
        loss(low_passed(wave, cutoff + 1000), wave, cutoff * 3),
    )
    assert near < 0.1 < 1 < far, "what lies above the cutoff does not count"


def test_prosody_of_a_reference() -> None:
    log_f0 = torch.tensor([[5.0, 5.2] * 30, [4.0] * 60])
    voiced = torch.ones(2, 60)
    voiced[1, 15:] = 0
    prosody = prosody_of(log_f0, voiced, torch.zeros(2, 60))
    assert torch.allclose(prosody.targets[0], torch.tensor([5.1, 0.1, 0.001]), atol=1e-3)
    assert prosody.known.tolist() == [1, 0]


def test_the_classifier_learns_and_the_content_unlearns() -> None:
    torch.manual_seed(0)
    classifier = SpeakerClassifier(4, 2)
    content = torch.randn(6, 4, 20, requires_grad=True)
    who = torch.tensor([0, 1, 0, 1, 0, -1])
    loss = classifier.loss(content, who)
    loss.backward()
    with torch.no_grad():
        assert content.grad is not None and content.grad[5].abs().max() == 0, (
            "an unknown speaker does not count"
        )
        assert classifier.loss(content - 0.5 * content.grad, who) > loss, (
            "content moves to where the classifier fails"
        )
        for weight in classifier.parameters():
            weight -= 0.05 * weight.grad
        assert classifier.loss(content, who) < loss


def test_speaker_encoder_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match="Resemblyzer"):
        speaker.SpeakerEncoder.pretrained()


def test_speaker_encoder_is_the_packages() -> None:
    pytest.importorskip("librosa")
    pytest.importorskip("resemblyzer")
    import librosa
    from resemblyzer import VoiceEncoder

    filters = librosa.filters.mel(sr=16_000, n_fft=400, n_mels=40)
    assert torch.allclose(
        speaker.slaney_filters(40, 400, 16_000), torch.from_numpy(filters).float(), atol=1e-7
    )
    ours, theirs = speaker.SpeakerEncoder.pretrained(), VoiceEncoder("cpu", verbose=False)
    time = torch.arange(38_400) / 24_000
    wave = (
        torch.stack([torch.sin(2 * torch.pi * 140 * k * time) / k for k in range(1, 20)]).sum(0)
        * 0.1
    )
    wave = wave * (0.6 + 0.4 * torch.sin(2 * torch.pi * 3 * time))
    at_16k = torch.nn.functional.interpolate(wave[None, None], 25_600, mode="linear")[0, 0].numpy()
    mel = librosa.feature.melspectrogram(
        y=at_16k, sr=16_000, n_fft=400, hop_length=160, n_mels=40
    ).T
    with torch.no_grad():
        reference = theirs(torch.from_numpy(mel).float()[None])[0]
        found = ours(wave[None])[0]
    assert torch.dot(reference, found) > 0.97
    sound = wave[None].clone().requires_grad_()
    (ours(sound) * torch.arange(256)).sum().backward()
    assert (
        sound.grad is not None
        and sound.grad.abs().max() > 0
        and not any(p.requires_grad for p in ours.parameters())
    )
