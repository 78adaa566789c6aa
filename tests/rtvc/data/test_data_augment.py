"""Augmentation: timing is kept, every effect does what it says, and the same seed gives the same
sound."""

import math

import pytest
import torch

from rtvc.data import effects
from rtvc.data.augment import AugmentConfig, augment

RATE = 24_000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tone(hertz: float, samples: int = 24_000, level: float = 0.5) -> torch.Tensor:
    return level * torch.sin(2 * math.pi * hertz * torch.arange(samples) / RATE)[None]


def peak_hertz(wave: torch.Tensor) -> float:
    middle = wave[0, 4_000:-4_000]
    spectrum = torch.fft.rfft(middle * torch.hann_window(len(middle)), 1 << 17).abs()
    return float(spectrum.argmax()) * RATE / (1 << 17)


def decibel(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(10 * torch.log10(effects.power(a) / effects.power(b)))


def clicks(samples: int = 24_000) -> torch.Tensor:
    """Bursts of a 1 kHz tone at 0.2, 0.5 and 0.8 s."""
    wave = torch.zeros(1, samples)
    for start in (4_800, 12_000, 19_200):
        wave[0, start : start + 1_200] = tone(1_000, 1_200)[0] * torch.hann_window(1_200)
    return wave


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.26])
def test_shift_moves_pitch_and_keeps_time(factor: float) -> None:
    moved = effects.shift(tone(400).repeat(2, 1), torch.tensor([factor, 1.1]))
    assert moved.shape == (2, 24_000)
    assert peak_hertz(moved[:1]) == pytest.approx(400 * factor, rel=0.005) and peak_hertz(
        moved[1:]
    ) == pytest.approx(440, rel=0.005)
    bursts = effects.shift(clicks(), torch.tensor([factor]))[0].square()
    for centre in (5_400, 12_600, 19_800):
        near = bursts[centre - 3_000 : centre + 3_000]
        found = centre - 3_000 + float((near * torch.arange(len(near))).sum() / near.sum())
        assert abs(found - centre) < 240, "within 10 ms"


def test_resampling_is_exact_for_band_limited_sound() -> None:
    read = effects.resampled(tone(1_000), torch.tensor([1.25]), 16_000)
    assert torch.allclose(read[:, 100:], tone(1_250, 16_000)[:, 100:], atol=2e-3)
    faster = effects.resampled(tone(11_000), torch.tensor([2.0]), 10_000)
    assert decibel(faster, tone(11_000)) < -20, "what would alias is filtered out"


def test_filters() -> None:
    both = tone(1_000) + tone(6_000)
    low = effects.low_pass(both, torch.tensor([4_000.0]))
    assert torch.allclose(low[:, 600:-600], tone(1_000)[:, 600:-600], atol=0.01)
    shaped = effects.equalise(torch.randn(4, 24_000, generator=generator()), 12.0, generator(1))
    levels = 20 * torch.fft.rfft(shaped).abs().unflatten(1, (-1, 12_001))[:, 0].log10()
    curves = levels[:, 600:11_400].unflatten(1, (-1, 600)).mean(-1)
    spread = curves - curves.mean(1, keepdim=True)
    assert spread.abs().max() < 24 and (spread.amax(1) - spread.amin(1) > 1.5).all()


def test_noise_has_the_asked_ratio() -> None:
    clean = tone(500).repeat(2, 1)
    noisy = effects.noise(clean, torch.tensor([10.0, 30.0]), generator())
    for row, ratio in ((0, 10.0), (1, 30.0)):
        assert decibel(clean[row : row + 1], (noisy - clean)[row : row + 1]) == pytest.approx(
            ratio, abs=0.1
        )


def test_room_keeps_onset_and_level() -> None:
    wet = effects.reverberate(clicks(), torch.tensor([0.4]), torch.tensor([6.0]), generator())
    assert decibel(wet, clicks()) == pytest.approx(0, abs=0.01)
    assert wet[0, :4_700].abs().max() < 1e-4 < wet[0, 6_500:11_000].abs().max(), (
        "nothing before the sound, a tail behind it"
    )


def test_codec_clip_and_mu_law() -> None:
    quiet = tone(1_000) + tone(7_000, level=0.001)
    coded = effects.codec(quiet, torch.tensor([40.0]))
    assert decibel(coded, tone(1_000)) == pytest.approx(0, abs=2)
    hidden = (
        torch.fft.rfft(coded[0])[6_990:7_010].abs().max()
        / torch.fft.rfft(quiet[0])[6_990:7_010].abs().max()
    )
    assert hidden < 0.2
    cut = effects.clip(tone(100), torch.tensor([0.5]))
    assert (
        cut.abs().max() == pytest.approx(0.25, abs=1e-4)
        and (cut.abs() > 0.2499).float().mean() > 0.5
    )
    coarse = effects.mu_law(tone(100))
    assert len(coarse.unique()) < 256 and decibel(tone(100), coarse - tone(100)) > 30


ALL = AugmentConfig(
    shift=1, room=1, equalise=1, noise=1, low_pass=1, codec=1, mu_law=1, gain=1, clip=1
)


def test_the_whole_chain() -> None:
    wave = tone(300).repeat(3, 1) + 0.01 * torch.randn(3, 24_000, generator=generator())
    one, two, other = (augment(wave, ALL, generator(seed)) for seed in (1, 1, 2))
    assert one.shape == wave.shape and torch.isfinite(one).all() and one.abs().max() <= 1
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert not torch.equal(one[0], one[1]), "rows differ"
    off = AugmentConfig(
        shift=0, room=0, equalise=0, noise=0, low_pass=0, codec=0, mu_law=0, gain=0, clip=0
    )
    assert torch.equal(augment(wave, off, generator()), wave)
    half = augment(wave.repeat(8, 1), off.model_copy(update={"gain": 0.5}), generator(3))
    changed = (half != wave.repeat(8, 1)).any(1)
    assert 3 < int(changed.sum()) < 21


def test_silence_stays_finite() -> None:
    assert torch.isfinite(augment(torch.zeros(2, 12_000), ALL, generator())).all()
