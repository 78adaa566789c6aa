"""StyleTTS 2: parity with the authors' code, and what training and folding rely on."""

import copy
import math
from collections.abc import Callable, Iterator
from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from rtvc.audio.mel import mel_spectrogram
from rtvc.models.styletts2.decoder import Decoder, HiFiGANDecoder, ISTFTNetDecoder, smooth_randomly
from rtvc.models.styletts2.discriminators import (
    MultiPeriodDiscriminator,
    MultiResolutionDiscriminator,
    PeriodDiscriminator,
)
from rtvc.models.styletts2.prosody import ProsodyPredictor
from rtvc.models.styletts2.source import Draws, HarmonicSource
from rtvc.models.styletts_vc.norms import fold_weight_norm
from rtvc.models.vocoder import GriffinLim, Vocoder
from tests.support.parity import (
    components,
    golden,
    needs_vectors,
    published_shapes,
    relative_error,
    vectors,
)

TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.no_grad():
        yield


def small(kind: str = "istftnet") -> Decoder:
    """The same decoder, at a size for tests."""
    if kind == "istftnet":
        return ISTFTNetDecoder(width=64, channels=32)
    return HiFiGANDecoder(width=64, channels=32)


def utterance(frames: int = 8, rows: int = 2) -> tuple[torch.Tensor, ...]:
    """Content, F0, energy and style of the shapes that a decoder takes."""
    torch.manual_seed(0)
    f0 = torch.linspace(90, 240, 2 * frames).repeat(rows, 1)
    f0[:, :3] = 0
    return torch.randn(rows, 512, frames), f0, torch.randn(rows, 2 * frames), torch.randn(rows, 128)


ROUNDING = 1e-6
"""Size of a bin of the excitation's spectrum that only the rounding of an FFT makes: sines leave
bins of 0.01 and more."""


def undefined_phases(speak: Callable[[], Tensor]) -> float:
    """How far apart two outputs of the iSTFTNet generator are if they differ only in what no
    mathematics determines.

    Where nothing is voiced the excitation is constant, most bins of its spectrum are rounding, and
    so are their phases, which the generator is shown as numbers from -pi to pi. Golden vectors hold
    those of their processor's FFT; on another processor they differ.
    """
    angle, outputs = torch.Tensor.angle, []
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)

        def drawn(spectrum: Tensor, generator: torch.Generator = generator) -> Tensor:
            phase = angle(spectrum)
            noise = (2 * torch.rand(phase.shape, generator=generator) - 1) * math.pi
            return torch.where(spectrum.abs() < ROUNDING, noise, phase)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.Tensor, "angle", drawn)
            outputs.append(speak())
    return min(relative_error(a, b) for a, b in combinations(outputs, 2))


@needs_vectors
@pytest.mark.parametrize(
    ("name", "build"), [("istftnet_decoder", ISTFTNetDecoder), ("hifigan_decoder", HiFiGANDecoder)]
)
def test_decoder_parity(name: str, build: type[nn.Module]) -> None:
    model = build()
    assert sum(p.numel() for p in model.parameters()) == components()[name]["parameters"]
    assert {
        key: list(value.shape) for key, value in model.state_dict().items()
    } == published_shapes(name)
    inputs, (wanted,) = vectors(name)
    made = golden(model, name)
    got = made(*inputs, draws=Draws.zeros())
    assert got.shape == wanted.shape
    if name == "istftnet_decoder" and relative_error(got, wanted) > TOLERANCE:
        assert relative_error(got, wanted) <= undefined_phases(
            lambda: made(*inputs, draws=Draws.zeros())
        )
        return
    assert relative_error(got, wanted) <= TOLERANCE
    if name == "istftnet_decoder":
        folded = fold_weight_norm(model)(*inputs, draws=Draws.zeros())
        assert relative_error(folded, wanted) <= TOLERANCE
        assert not any(key.endswith(("weight_g", "weight_v")) for key in model.state_dict())


@needs_vectors
def test_prosody_predictor_parity() -> None:
    model = ProsodyPredictor()
    assert (
        sum(p.numel() for p in model.parameters())
        == components()["prosody_predictor"]["parameters"]
    )
    assert {
        key: list(value.shape) for key, value in model.state_dict().items()
    } == published_shapes("prosody_predictor")
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


@pytest.mark.parametrize("kind", ["istftnet", "hifigan"])
def test_half_precision(kind: str) -> None:
    """The source's phases stay in float32, or they would drift within a second."""
    model, inputs = small(kind).eval(), utterance()
    wanted = model(*inputs, draws=Draws.zeros())
    with torch.autocast("cpu", torch.bfloat16):
        assert model(*inputs, draws=Draws.zeros()).shape == wanted.shape
        assert all(
            verdict.logits.isfinite().all()
            for verdict in MultiResolutionDiscriminator()(wanted.bfloat16())
        )
    content, f0, energy, style = inputs
    half = model.bfloat16()(
        content.bfloat16(), f0, energy.bfloat16(), style.bfloat16(), draws=Draws.zeros()
    )
    assert half.shape == wanted.shape and half.isfinite().all()
    assert torch.equal(model.generator.m_source.sines(f0), HarmonicSource(300).sines(f0))


def test_rows_of_a_batch_do_not_meet() -> None:
    # Not iSTFTNet, whose source phases jump by 2 pi with the last bit of a sum, so that rounding is
    # heard.
    model, inputs = small("hifigan").eval(), utterance()
    both = model(*inputs, draws=Draws.zeros())
    alone = model(*(x[1:] for x in inputs), draws=Draws.zeros())
    assert relative_error(both[1:], alone) < TOLERANCE


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


@pytest.mark.parametrize(
    ("build", "verdicts", "parameters"),
    [(MultiPeriodDiscriminator, 5, 41_105_770), (MultiResolutionDiscriminator, 3, 280_902)],
)
def test_waveform_discriminators(build: type[nn.Module], verdicts: int, parameters: int) -> None:
    judge = build()
    assert sum(p.numel() for p in judge.parameters()) == parameters
    wave = torch.randn(2, 1, 3001)
    got = judge(wave)
    assert len(got) == verdicts
    for verdict in got:
        assert verdict.logits.shape[0] == 2 and len(verdict.features) == 6
        assert torch.equal(verdict.features[-1].flatten(1), verdict.logits)
    with torch.enable_grad():
        heard = wave.requires_grad_()
        sum(verdict.logits.square().mean() for verdict in judge(heard)).backward()
    assert heard.grad is not None and heard.grad.abs().sum() > 0
    assert all(p.grad is not None for p in judge.parameters())


def test_a_small_power_lets_quiet_parts_count() -> None:
    """A noise 60 dB below a tone moves what is seen at power 0.3 far more, and silence has a
    gradient."""
    tone = 0.5 * torch.sin(2 * torch.pi * 1000 / 24000 * torch.arange(4800))[None, None]
    hiss = 5e-4 * torch.randn(1, 1, 4800, generator=torch.Generator().manual_seed(0))

    def moved(power: float) -> torch.Tensor:
        torch.manual_seed(0)
        judge = MultiResolutionDiscriminator([(512, 128, 512)], channels=4, power=power)
        clean, noisy = (judge(wave)[0].features[0] for wave in (tone, tone + hiss))
        return (noisy - clean).norm() / clean.norm()

    assert moved(0.3) > 5 * moved(1.0)
    with torch.enable_grad():
        silence = torch.zeros(1, 1, 4800, requires_grad=True)
        MultiResolutionDiscriminator(power=0.3)(silence)[0].logits.sum().backward()
    assert silence.grad is not None and silence.grad.isfinite().all()


def test_period_discriminator_sees_each_phase_apart() -> None:
    """A sample only changes the verdicts of its own column."""
    judge = PeriodDiscriminator(3, channels=(2, 2))
    wave = torch.randn(1, 1, 30)
    changed = wave.clone()
    changed[..., 7] += 1
    difference = (
        (judge(wave).logits - judge(changed).logits).unflatten(-1, (-1, 3)).abs().amax((0, 1))
    )
    assert difference[1] > 0 and difference[0] == difference[2] == 0


def test_vocoder_and_phase_estimation() -> None:
    torch.manual_seed(0)
    assert Vocoder(channels=32)(torch.randn(2, 80, 7)).shape == (2, 1, 2100)
    assert sum(p.numel() for p in Vocoder().parameters()) == 14_280_194
    wave = 0.3 * torch.sin(torch.arange(12000) * 2 * math.pi * 440 / 24000)[None, None]
    mel = mel_spectrogram(wave[:, 0])[..., :-1]
    again = GriffinLim()(mel)
    assert again.shape == wave.shape and torch.equal(again, GriffinLim()(mel))
    difference = (mel_spectrogram(again[:, 0])[..., :-1] - mel)[..., 3:-3]
    assert difference.abs().median() < 0.1
