"""The single effects of `rtvc.data.augment`: waves (B, N) at 24 kHz in, the same shape and timing
out, one strength a row."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from rtvc.audio.mel import SAMPLE_RATE

TAPS = 12
"""Samples on either side that interpolation looks at."""
FRAME, STEP = 1024, 256
"""Window and hop of the phase vocoder and of the codec, in samples."""


def power(wave: Tensor) -> Tensor:
    """Mean square of each row, (B, 1), never 0."""
    return wave.square().mean(-1, keepdim=True).clamp_min(1e-10)


def filtered(wave: Tensor, response: Tensor) -> Tensor:
    """wave (B, N) through a zero-phase filter, response (B, F) at F frequencies from 0 to 12
    kHz."""
    size = 1 << (wave.shape[-1] + FRAME).bit_length()
    bins = size // 2 + 1
    curve = F.interpolate(response[:, None].to(wave), bins, mode="linear", align_corners=True)[:, 0]
    y: Tensor = torch.fft.irfft(torch.fft.rfft(wave, size) * curve, size)[:, : wave.shape[-1]]
    return y


def equalise(wave: Tensor, limit: float, generator: torch.Generator) -> Tensor:
    """A random smooth curve over log-frequency, within `limit` dB, plus a tilt."""
    knots = torch.rand(len(wave), 1, 8, generator=generator) * 2 - 1
    tilt = (torch.rand(len(wave), 1, 1, generator=generator) * 2 - 1) * torch.linspace(-1, 1, 8)
    curve = (
        F.interpolate(((knots + tilt) / 2).clamp(-1, 1), 257, mode="linear", align_corners=True)[
            :, 0
        ]
        * limit
    )
    frequencies = torch.linspace(0, SAMPLE_RATE / 2, 257)
    place = (
        (torch.log(frequencies.clamp_min(60) / 60) / math.log(SAMPLE_RATE / 120) * 256)
        .round()
        .long()
    )
    return filtered(wave, 10 ** (curve[:, place] / 20))


def low_pass(wave: Tensor, cutoff: Tensor) -> Tensor:
    """Takes away what lies above cutoff (B,) in Hz, over a transition of 300 Hz."""
    frequencies = torch.linspace(0, SAMPLE_RATE / 2, 2049)
    return filtered(wave, ((cutoff[:, None] - frequencies) / 300 + 0.5).clamp(0, 1))


def noise(wave: Tensor, snr: Tensor, generator: torch.Generator) -> Tensor:
    """Adds noise of a random colour at snr (B,) dB."""
    white = torch.randn(wave.shape, generator=generator).to(wave)
    slope = torch.rand(len(wave), 1, generator=generator) * 2  # 0 white, 1 pink, 2 brown
    frequencies = torch.linspace(0, SAMPLE_RATE / 2, 513).clamp_min(50)
    coloured = filtered(white, (frequencies / 1000) ** (-slope / 2))
    level = (power(wave) / power(coloured) * 10 ** (-snr.to(wave)[:, None] / 10)).sqrt()
    return wave + level * coloured


def reverberate(wave: Tensor, seconds: Tensor, ratio: Tensor, generator: torch.Generator) -> Tensor:
    """A room: exponentially decaying noise behind the direct sound.

    Args:
        wave: (B, N).
        seconds: (B,) reverberation time, RT60.
        ratio: (B,) direct to reverberant power, dB.
        generator: of the room.
    """
    length = int(SAMPLE_RATE * float(seconds.max()))
    time = torch.arange(length) / SAMPLE_RATE
    tail = torch.randn(len(wave), length, generator=generator) * 10 ** (
        -3 * time / seconds[:, None]
    )
    tail[:, : SAMPLE_RATE // 500] = 0  # the first 2 ms belong to the direct sound
    tail = (
        tail
        / tail.square().sum(-1, keepdim=True).clamp_min(1e-10).sqrt()
        * 10 ** (-ratio[:, None] / 20)
    )
    tail[:, 0] = 1
    size = 1 << (wave.shape[-1] + length).bit_length()
    wet: Tensor = torch.fft.irfft(
        torch.fft.rfft(wave, size) * torch.fft.rfft(tail.to(wave), size), size
    )[:, : wave.shape[-1]]
    wet = wet * (power(wave) / power(wet)).sqrt()
    return wet


def codec(wave: Tensor, floor: Tensor) -> Tensor:
    """What a lossy codec leaves: in each frame, bins more than floor (B,) dB below its peak vanish,
    the others lose precision."""
    window = torch.hann_window(FRAME, device=wave.device)
    spectrum = torch.stft(wave, FRAME, STEP, window=window, return_complex=True)
    level = 20 * spectrum.abs().clamp_min(1e-7).log10()
    kept = level > level.amax(1, keepdim=True) - floor.to(wave)[:, None, None]
    coarse = (level / 3).round() * 3  # 3 dB steps
    spectrum = spectrum * torch.where(kept, 10 ** ((coarse - level) / 20), 0.0)
    return torch.istft(spectrum, FRAME, STEP, window=window, length=wave.shape[-1])


def clip(wave: Tensor, share: Tensor) -> Tensor:
    """Cuts each row at share (B,) of its peak."""
    level = wave.abs().amax(-1, keepdim=True) * share.to(wave)[:, None]
    return torch.maximum(torch.minimum(wave, level), -level)


def mu_law(wave: Tensor, levels: int = 256) -> Tensor:
    """Quantisation to 8 bits by the telephone's mu-law (ITU-T G.711's curve)."""
    mu = levels - 1
    wave = wave.clamp(-1, 1)
    small = torch.sign(wave) * torch.log1p(mu * wave.abs()) / math.log1p(mu)
    small = (small * (levels / 2)).round() / (levels / 2)
    return torch.sign(small) * torch.expm1(small.abs() * math.log1p(mu)) / mu


def resampled(wave: Tensor, factor: Tensor, samples: int) -> Tensor:
    """Reads wave (B, N) at `factor` (B,) times its speed, `samples` values -> (B, samples), by
    windowed-sinc interpolation.

    Output n is the input at n * factor; beyond the end there are zeros. Speeding up filters out
    what would alias.
    """
    factor = factor.to(wave)[:, None]
    place = torch.arange(samples, device=wave.device) * factor
    whole = place.floor()
    offsets = torch.arange(1 - TAPS, TAPS + 1, device=wave.device)
    distance = offsets - (place - whole)[..., None]
    cutoff = (1 / factor).clamp(max=1.0)[..., None]
    weights = (
        cutoff
        * torch.sinc(cutoff * distance)
        * torch.cos(math.pi / 2 * (distance / TAPS).clamp(-1, 1)).square()
    )
    index = (whole[..., None].long() + offsets + TAPS).clamp(0, wave.shape[-1] + 2 * TAPS - 1)
    padded = F.pad(wave, (TAPS, TAPS))
    taps = padded.gather(1, index.flatten(1)).view(index.shape)
    return (taps * weights).sum(-1)


def nearest_peak(magnitude: Tensor) -> Tensor:
    """magnitude (B, F, T) -> for each bin the nearest bin that is louder than its two neighbours on
    either side, (B, F, T) int64."""
    bins = magnitude.shape[1]
    highest = F.max_pool2d(magnitude[:, None], (5, 1), 1, (2, 0))[:, 0]
    place = torch.arange(bins, device=magnitude.device)[:, None].expand_as(magnitude)
    peak = magnitude == highest
    below = torch.where(peak, place, -bins).cummax(1).values
    above = torch.where(peak, place, 2 * bins).flip(1).cummin(1).values.flip(1)
    return torch.where(place - below <= above - place, below, above)


def shift(wave: Tensor, factor: Tensor) -> Tensor:
    """Moves pitch and formants by factor (B,) without changing the tempo: a phase vocoder
    stretches, resampling undoes it.

    Source: Flanagan and Golden 1966, "Phase vocoder"; Laroche and Dolson 1999 (identity phase
    locking).
    """
    samples = wave.shape[-1]
    window = torch.hann_window(FRAME, device=wave.device)
    spectrum = torch.stft(wave, FRAME, STEP, window=window, return_complex=True)
    frames = math.ceil(spectrum.shape[-1] * float(factor.max())) + 1
    # Output frame t shows the input at t / factor.
    place = (torch.arange(frames, device=wave.device) / factor.to(wave)[:, None]).clamp(
        max=spectrum.shape[-1] - 1.001
    )
    before = place.long()
    after = (before + 1).clamp(max=spectrum.shape[-1] - 1)
    part = (place - before)[:, None]

    def at(x: Tensor, index: Tensor) -> Tensor:
        return x.gather(2, index[:, None].expand(-1, x.shape[1], -1))

    magnitude, phase = spectrum.abs(), spectrum.angle()
    magnitude = at(magnitude, before) * (1 - part) + at(magnitude, after) * part
    advance = at(phase, after) - at(phase, before)
    expected = (
        2 * math.pi * STEP / FRAME * torch.arange(FRAME // 2 + 1, device=wave.device)[:, None]
    )
    advance = expected + torch.remainder(advance - expected + math.pi, 2 * math.pi) - math.pi
    # Bins turn with the nearest spectral peak, so that onsets stay where they are.
    peak = nearest_peak(magnitude)
    seen = at(phase, before)
    within = seen - seen.gather(1, peak)
    turned = [seen[..., 0]]
    for t in range(1, frames):
        turned.append((turned[-1] + advance[..., t - 1]).gather(1, peak[..., t]) + within[..., t])
    phases = torch.stack(turned, -1)
    long = torch.istft(torch.polar(magnitude, phases), FRAME, STEP, window=window)
    return resampled(long, factor, samples)
