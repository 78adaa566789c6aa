"""How the second generation begins as the shipped model."""

import pytest
import torch
from torch import Tensor

from rtvc.audio.mel import HOP
from rtvc.layers.contract import offline
from rtvc.layers.conv import Conv
from rtvc.models.streaming.assets import load_default
from rtvc.models.streaming.model import StreamingConverter
from rtvc.train.material.inherited import Pair, first_answers, fit_convolution, take_matching
from tests.support.standins import speech
from tests.support.told_melody import told_melody


def test_what_agrees_is_taken_from_another_model() -> None:
    old, new = (
        torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 4)),
        torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 5)),
    )
    kept = new[1].weight.clone()
    take_matching(new, old)
    assert torch.equal(new[0].weight, old[0].weight) and torch.equal(new[1].weight, kept)


def test_a_convolution_learns_another_one_from_its_answers() -> None:
    generator = torch.Generator().manual_seed(0)
    theirs, ours = Conv(5, 4, 3), Conv(5, 4, 3)
    pairs = []
    for _ in range(3):
        read = torch.randn(2, 5, 60, generator=generator)
        pairs.append(Pair(read, offline(theirs, read).detach()))
    explained = fit_convolution(ours, pairs, warm=4)
    read = torch.randn(1, 5, 30, generator=generator)
    torch.testing.assert_close(offline(ours, read), offline(theirs, read), atol=2e-2, rtol=0)
    assert 0.999 < explained <= 1


def test_what_cannot_be_explained_is_not_said_to_be() -> None:
    generator = torch.Generator().manual_seed(0)
    pairs = [
        Pair(
            torch.randn(4, 3, 200, generator=generator),
            5 + torch.randn(4, 2, 200, generator=generator),
        )
    ]
    layer = Conv(3, 2, 3)
    assert abs(fit_convolution(layer, pairs, warm=0)) < 0.05
    assert layer.bias is not None
    torch.testing.assert_close(layer.bias, torch.full((2,), 5.0), atol=0.2, rtol=0)


@pytest.fixture
def wave() -> Tensor:
    """A second and a half that stands for speech, (1, N)."""
    samples = torch.from_numpy(speech(1.5)).float()
    return samples[None, : len(samples) // HOP * HOP]


def seen_by_the_decoder(
    model: StreamingConverter, wave: Tensor, monkeypatch: pytest.MonkeyPatch
) -> tuple[Tensor, Tensor, Tensor]:
    """log F0 and voicing (B, T) that its decoder is told while it converts a wave, and what its
    first convolution answers (B, H, T)."""
    answers: list[Tensor] = []
    handle = model.decoder.inputs.register_forward_hook(
        lambda _, __, output: answers.append(output[0])
    )
    log_f0, voicing = told_melody(model, wave[:, None], monkeypatch)
    handle.remove()
    return log_f0, voicing, answers[0]


@torch.no_grad()
def test_the_shipped_decoder_is_asked_as_in_a_stream(
    wave: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_default().eval()
    log_f0, voiced, streamed = seen_by_the_decoder(model, wave, monkeypatch)
    right = model.encoder.latency
    answers, cut = first_answers(
        model, wave, log_f0.roll(-right, 1), voiced.roll(-right, 1), fall=600
    )
    assert cut == right
    torch.testing.assert_close(answers[..., 2:], streamed[..., right + 2 :], atol=2e-4, rtol=0)
