"""The layers of the streaming model: causal norms, blocks, source, short-time synthesis, running
statistics."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtvc.layers.blocks import AdaBlock, ConvBlock
from rtvc.layers.contract import Serial, State, Streaming
from rtvc.layers.norm import EPSILON, Statistics
from rtvc.layers.source import HarmonicSource
from rtvc.layers.synthesis import Istft, Stft
from rtvc.layers.verify import verify_contract
from rtvc.models.streaming.decoder import BINS, SIZE, minimum_phase
from rtvc.models.streaming.prosody import RunningMoments

STATISTICS: list[Statistics] = ["frame", "film", "predicted"]


class Styled(Streaming):
    """A layer that takes a style, with one style fixed a row: an ordinary layer under the
    contract."""

    def __init__(self, layer: AdaBlock) -> None:
        super().__init__()
        self.layer = layer
        self.style = nn.Parameter(
            torch.randn(layer.style_size, generator=torch.Generator().manual_seed(3)) * 0.3
        )

    def initial(self, batch: int) -> State:
        return self.layer.initial(batch)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        y, state = self.layer(x, self.style.expand(len(x), -1), state)
        return y, state


@pytest.mark.parametrize("statistics", STATISTICS)
def test_adaptive_blocks_keep_the_contract(statistics: Statistics) -> None:
    verify_contract(Styled(AdaBlock(4, 3, 2, statistics)), 4)


def test_convolution_block_keeps_the_contract() -> None:
    verify_contract(ConvBlock(4, 3, 4), 4)


@pytest.mark.parametrize("statistics", STATISTICS)
def test_adaptive_blocks_are_norm_leaky_relu_and_convolution_twice(statistics: Statistics) -> None:
    block = AdaBlock(4, 3, 2, statistics).double()
    x, style = torch.randn(2, 4, 9).double(), torch.randn(2, block.style_size).double()

    def styled(x: Tensor, style: Tensor) -> Tensor:
        scale, shift, *more = style[..., None].split(4, 1)
        if statistics == "frame":
            x = (x - x.mean(1, True)) / (x.var(1, keepdim=True, correction=0) + EPSILON).sqrt()
        elif statistics == "predicted":
            deviation, mean = more
            x = (x - mean) / deviation.exp()
        return F.leaky_relu(x * (1 + scale) + shift, 0.2)

    first, second = style.chunk(2, 1)
    past = F.pad(styled(x, first), (4, 0))
    y = F.conv1d(past, block.conv.weight.permute(0, 2, 1), block.conv.bias, dilation=2)
    y = F.conv1d(styled(y, second), block.out.weight.permute(0, 2, 1), block.out.bias)
    got, state = block(x, style, block.initial(2).double())
    torch.testing.assert_close(got, x + y, rtol=0, atol=1e-12)
    torch.testing.assert_close(state, past[..., -4:], rtol=0, atol=1e-12)


def test_convolution_blocks_are_norm_convolution_gelu_and_a_linear_map() -> None:
    block = ConvBlock(4, 3, 4).double()
    torch.nn.init.normal_(block.scale)
    torch.nn.init.normal_(block.shift)
    x = torch.randn(2, 4, 9).double()
    y = F.layer_norm(x.mT, (4,), block.scale, block.shift, EPSILON).mT
    y = F.conv1d(F.pad(y, (8, 0)), block.conv.weight.permute(0, 2, 1), block.conv.bias, dilation=4)
    y = F.conv1d(F.gelu(y), block.out.weight.permute(0, 2, 1), block.out.bias)
    got, _ = block(x, block.initial(2).double())
    torch.testing.assert_close(got, x + y, rtol=0, atol=1e-12)


def test_stft_and_istft_reconstruct_with_the_declared_lag() -> None:
    stft, istft = Stft(600, 150).double(), Istft(600, 150).double()
    x = torch.randn(2, 1, 3000, dtype=torch.float64)
    spectrum, _ = stft(x, stft.initial(2).double())
    y, _ = istft(spectrum, istft.initial(2).double())
    torch.testing.assert_close(
        y[..., 450:], x[..., :-450], rtol=0, atol=1e-6
    )  # the DFT matrices are stored as float32


@pytest.mark.parametrize(
    ("layer", "channels", "unit"),
    [(Stft(12, 3), 1, 3), (Istft(12, 3), 14, 1), (Serial(Stft(8, 2), Istft(8, 2)), 1, 2)],
)
def test_short_time_layers_keep_the_contract(layer: Streaming, channels: int, unit: int) -> None:
    verify_contract(layer, channels, unit=unit)


@pytest.mark.parametrize("make", [Stft, Istft])
def test_windows_that_do_not_divide_are_refused(make: type[Stft]) -> None:
    with pytest.raises(ValueError, match="multiple of the hop"):
        make(10, 3)


class PitchInput(Streaming):
    """The source driven by two channels, so that the contract's checker can drive it."""

    def __init__(self) -> None:
        super().__init__()
        self.source = HarmonicSource(24_000, 10)
        self.ratio = self.ratio * 10

    def initial(self, batch: int) -> State:
        return self.source.initial(batch)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        y, state = self.source(100 + 40 * torch.tanh(x[:, 0]), torch.sigmoid(x[:, 1]), state)
        return y[:, None], state


def test_source_keeps_the_contract() -> None:
    verify_contract(PitchInput(), 2, gradients=False)


@pytest.mark.parametrize("f0", [80.0, 147.3, 410.0])
def test_source_has_the_pitch_and_power_asked_for(f0: float) -> None:
    source = HarmonicSource(24_000, 300).double()
    wave, _ = source(
        torch.full((1, 80), f0).double(), torch.ones(1, 80).double(), source.initial(1)
    )
    wave = wave[0, 2400:]
    assert 0.9 < wave.square().mean().sqrt() < 1.1
    spectrum = torch.fft.rfft(wave * torch.hann_window(len(wave), dtype=wave.dtype)).abs()
    hertz = 24_000 / len(wave)
    peak = spectrum[int(f0 * 0.5 / hertz) : int(f0 * 1.5 / hertz)].argmax() + int(f0 * 0.5 / hertz)
    assert abs(peak.item() * hertz - f0) <= hertz


def test_source_is_continuous_when_a_harmonic_leaves() -> None:
    """A glide across the point where the topmost harmonic passes Nyquist must not click."""
    source = HarmonicSource(24_000, 300).double()
    glide = torch.linspace(118.0, 122.0, 80).double()[None]
    wave, _ = source(glide, torch.ones(1, 80).double(), source.initial(1))
    reference, _ = source(
        torch.full((1, 80), 120.5).double(), torch.ones(1, 80).double(), source.initial(1)
    )
    assert wave.diff().abs().max() < 1.2 * reference.diff().abs().max()


def test_minimum_phase_is_that_of_a_known_filter() -> None:
    """A one-pole filter is minimum phase: its phase must follow from its magnitude."""
    pulse = 0.6 ** torch.arange(SIZE, dtype=torch.float64)
    spectrum = torch.fft.rfft(pulse)
    phase = torch.log(spectrum.abs()) @ minimum_phase(SIZE)
    torch.testing.assert_close(phase, torch.angle(spectrum), rtol=0, atol=1e-8)
    assert phase.shape == (BINS,)


def test_running_moments_start_from_the_prior_and_forget() -> None:
    moments = RunningMoments(5.0, 0.2, memory=100.0).double()
    x = torch.full((1, 400), 4.5).double()
    (mean, deviation), _ = moments(x, torch.ones_like(x), moments.initial(1))
    assert abs(mean[0, 0].item() - 5.0) < 0.1
    assert math.isclose(mean[0, -1].item(), 4.5, abs_tol=0.05)
    assert 0.05 < deviation[0, -1] < 0.2
    (silent, _), state = moments(x, torch.zeros_like(x), moments.initial(1))
    assert silent[0, -1].item() == pytest.approx(5.0)
    assert all(leaf.abs().max() == 0 for leaf in state)


def test_running_moments_forget_by_what_is_said_and_not_by_silence() -> None:
    moments = RunningMoments(5.0, 0.2, memory=100.0)
    x = torch.full((1, 400), 4.5).double()
    _, state = moments(x, torch.ones_like(x), moments.initial(1))
    _, later = moments(x + 3, torch.zeros_like(x), state)
    assert all(torch.equal(a, b) for a, b in zip(state, later, strict=True))


def test_the_melody_of_the_first_sentence_is_not_taken_for_the_register() -> None:
    """Somebody deep says a sentence that falls by seven semitones in two seconds, as after any
    other: relative to the running mean it still falls, and the mean comes to the same."""
    fall = torch.linspace(4.7, 4.3, 160)[None].double()
    again = fall.repeat(1, 12)
    kept, final = [], []
    for onset in (0.0, 8.0):
        moments = RunningMoments(5.0, 0.2, mean_prior=8.0, onset=onset, above=0.1)
        (mean, _), _ = moments(again, torch.ones_like(again), moments.initial(1))
        relative = (again - mean)[0, :160]
        kept.append(torch.corrcoef(torch.stack([relative, fall[0]]))[0, 1].item())
        final.append(mean[0, -1].item())
    assert kept[0] < 0.8 and kept[1] > 0.9, kept
    assert final[0] == pytest.approx(final[1], abs=0.03)
