"""The layers of the streaming model: causal norms, blocks, source, short-time synthesis, running
statistics."""

import math

import pytest
import torch
from torch import Tensor, nn

from rtvc.layers.blocks import AdaBlock, ConvBlock
from rtvc.layers.contract import Serial, State, Streaming
from rtvc.layers.norm import Statistics, StyleNorm
from rtvc.layers.source import HarmonicSource
from rtvc.layers.synthesis import Istft, Stft
from rtvc.layers.verify import verify_contract
from rtvc.models.streaming.decoder import BINS, SIZE, minimum_phase
from rtvc.models.streaming.prosody import RunningMoments

STATISTICS: list[Statistics] = ["frame", "film", "running", "predicted"]


class Styled(Streaming):
    """A layer that takes a style, with one style fixed a row: an ordinary layer under the
    contract."""

    def __init__(self, layer: StyleNorm | AdaBlock) -> None:
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
def test_causal_norms_keep_the_contract(statistics: Statistics) -> None:
    verify_contract(Styled(StyleNorm(4, statistics, memory=9.0)), 4, frames=96)


@pytest.mark.parametrize("statistics", STATISTICS)
def test_adaptive_blocks_keep_the_contract(statistics: Statistics) -> None:
    verify_contract(Styled(AdaBlock(4, 3, 2, statistics)), 4)


def test_convolution_block_keeps_the_contract() -> None:
    verify_contract(ConvBlock(4, 3, 4), 4)


def test_running_statistics_settle_on_the_signal() -> None:
    norm = StyleNorm(2, "running", memory=20.0)
    y, _ = norm(torch.randn(1, 2, 2000) * 5 + 3, torch.zeros(1, 4), norm.initial(1))
    assert y[..., 500:].mean().abs() < 0.1
    assert 0.9 < y[..., 500:].std() < 1.1


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
