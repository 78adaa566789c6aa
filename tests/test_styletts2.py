"""StyleTTS 2: parity with the authors' code, and what training and folding rely on."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from rtvc.models.styletts2.decoder import Decoder, HiFiGANDecoder, ISTFTNetDecoder, smooth_randomly
from rtvc.models.styletts2.prosody import ProsodyPredictor
from rtvc.models.styletts2.source import Draws, HarmonicSource
from rtvc.models.styletts_vc.norms import fold_weight_norm
from tests.parity import components, golden, needs_vectors, published_shapes, relative_error, vectors

TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.no_grad():
        yield


def small(kind: str = "istftnet") -> Decoder:
    """The same decoder, at a size for tests."""
    if kind == "istftnet":
        return ISTFTNetDecoder(channels=32)
    return HiFiGANDecoder(channels=32)


def utterance(frames: int = 8, rows: int = 2) -> tuple[torch.Tensor, ...]:
    """Content, F0, energy and style of the shapes that a decoder takes."""
    torch.manual_seed(0)
    f0 = torch.linspace(90, 240, 2 * frames).repeat(rows, 1)
    f0[:, :3] = 0
    return torch.randn(rows, 512, frames), f0, torch.randn(rows, 2 * frames), torch.randn(rows, 128)


@needs_vectors
@pytest.mark.parametrize(("name", "build"), [("istftnet_decoder", ISTFTNetDecoder), ("hifigan_decoder", HiFiGANDecoder)])
def test_decoder_parity(name: str, build: type[nn.Module]) -> None:
    model = build()
    assert sum(p.numel() for p in model.parameters()) == components()[name]["parameters"]
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == published_shapes(name)
    inputs, (wanted,) = vectors(name)
    got = golden(model, name)(*inputs, draws=Draws.zeros())
    assert got.shape == wanted.shape and relative_error(got, wanted) <= TOLERANCE
    if name == "istftnet_decoder":
        folded = fold_weight_norm(model)(*inputs, draws=Draws.zeros())
        assert relative_error(folded, wanted) <= TOLERANCE
        assert not any(key.endswith(("weight_g", "weight_v")) for key in model.state_dict())


@needs_vectors
def test_prosody_predictor_parity() -> None:
    model = ProsodyPredictor()
    assert sum(p.numel() for p in model.parameters()) == components()["prosody_predictor"]["parameters"]
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == published_shapes("prosody_predictor")
    inputs, wanted = vectors("prosody_predictor")
    logits, encoded = golden(model, "prosody_predictor")(*inputs)
    for got, want in zip((logits, encoded, *model.curves(encoded, inputs[1])), wanted, strict=True):
        assert got.shape == want.shape and relative_error(got, want) <= TOLERANCE


@pytest.mark.parametrize("kind", ["istftnet", "hifigan"])
def test_draws_decide_the_waveform(kind: str) -> None:
    model, inputs = small(kind).eval(), utterance()
    first, again = model(*inputs, draws=Draws.seeded(3)), model(*inputs, draws=Draws.seeded(3))
    assert torch.equal(first, again) and first.shape == (2, 1, 8 * 600)
    assert not torch.equal(first, model(*inputs, draws=Draws.seeded(4)))
    assert torch.equal(model(*inputs, draws=Draws.zeros()), model(*inputs, draws=Draws.zeros()))
    torch.manual_seed(1)
    free = model(*inputs)
    assert not torch.equal(free, model(*inputs)), "without draws the global generator goes on"


def test_rows_of_a_batch_do_not_meet() -> None:
    model, inputs = small().eval(), utterance()
    both = model(*inputs, draws=Draws.zeros())
    alone = model(*(x[1:] for x in inputs), draws=Draws.zeros())
    assert relative_error(both[1:], alone) < 1e-3


def test_a_source_follows_f0_and_is_noise_where_unvoiced() -> None:
    source = HarmonicSource(300)
    f0 = torch.full((1, 80), 200.0)
    # One second: bins are 1 Hz apart.
    spectrum = torch.fft.rfft(source.sines(f0)[0, 0]).abs()
    assert float(spectrum.argmax()) == pytest.approx(200, abs=1)
    assert source(torch.zeros(1, 8), Draws.zeros()).std() < 1e-6
    assert source(torch.zeros(1, 8), Draws.seeded(0)).std() > 1e-3


def test_folded_weights_load_and_sound_alike() -> None:
    model, inputs = small().eval(), utterance()
    wanted = model(*inputs, draws=Draws.zeros())
    folded = fold_weight_norm(copy.deepcopy(model))
    keys = set(folded.state_dict())
    assert "asr_res.0.weight" in keys and "generator.conv_post.weight" in keys
    fresh = fold_weight_norm(fold_weight_norm(small())).eval()
    fresh.load_state_dict(folded.state_dict())
    assert relative_error(fresh(*inputs, draws=Draws.zeros()), wanted) < 1e-3


def test_curves_of_a_wrong_rate_are_refused() -> None:
    content, f0, energy, style = utterance()
    with pytest.raises(ValueError, match=r"twice the frames, 16"):
        small()(content, f0[:, :-1], energy, style)


def test_training_smooths_curves_and_reaches_every_weight() -> None:
    curve = torch.randn(2, 40)
    assert torch.equal(smooth_randomly(curve, (1,)), curve)
    assert smooth_randomly(curve, (7,)).std() < curve.std()
    with torch.enable_grad():
        model = small("hifigan").train()
        model(*utterance()).square().mean().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None]
    assert not idle, f"no gradient reached {idle}"


def test_prosody_of_padded_rows_equals_prosody_alone() -> None:
    model = ProsodyPredictor(channels=32, style_dim=16, longest=10).eval()
    text, style, lengths = torch.randn(2, 32, 6), torch.randn(2, 16), torch.tensor([6, 4])
    mask = torch.arange(6) >= lengths[:, None]
    alignment = torch.eye(6).expand(2, 6, 6)
    logits, _ = model(text, style, lengths, alignment, mask)
    alone, _ = model(text[1:, :, :4], style[1:], lengths[1:], alignment[1:, :4, :4], mask[1:, :4])
    torch.testing.assert_close(logits[1:, :4], alone)
