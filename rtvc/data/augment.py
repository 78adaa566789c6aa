"""Strong augmentation of what an encoder hears: batches on any device, every draw from one seeded
generator.

All effects keep time: sample n of the output is sample n of the input, so labels stay valid.
`shift` moves pitch and formants.
"""

from collections.abc import Callable

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from rtvc.data.effects import clip, codec, equalise, low_pass, mu_law, noise, reverberate, shift


class AugmentConfig(BaseModel):
    """How often (probability a row) and how strongly (range) each effect is applied, in the order
    in which they come."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    shift: float = Field(default=0.5, ge=0, le=1)
    shift_semitones: tuple[float, float] = (-4.0, 4.0)
    room: float = Field(default=0.3, ge=0, le=1)
    room_seconds: tuple[float, float] = (0.1, 0.6)
    """Reverberation time (RT60)."""
    room_ratio: tuple[float, float] = (-5.0, 15.0)
    """Direct to reverberant sound, dB."""
    equalise: float = Field(default=0.5, ge=0, le=1)
    equalise_db: float = Field(default=12.0, ge=0)
    """Largest gain or loss of the random curve."""
    noise: float = Field(default=0.5, ge=0, le=1)
    noise_snr: tuple[float, float] = (5.0, 40.0)
    """dB."""
    low_pass: float = Field(default=0.2, ge=0, le=1)
    low_pass_hz: tuple[float, float] = (3_400.0, 11_000.0)
    codec: float = Field(default=0.2, ge=0, le=1)
    codec_floor: tuple[float, float] = (20.0, 45.0)
    """dB below each frame's peak under which sound is dropped."""
    mu_law: float = Field(default=0.1, ge=0, le=1)
    gain: float = Field(default=0.9, ge=0, le=1)
    gain_db: tuple[float, float] = (-15.0, 9.0)
    clip: float = Field(default=0.1, ge=0, le=1)
    clip_share: tuple[float, float] = (0.3, 0.95)
    """Level at which the wave is cut, as a share of its peak."""


def uniform(generator: torch.Generator, rows: int, bounds: tuple[float, float]) -> Tensor:
    """(B,) draws between two bounds, on the CPU."""
    low, high = bounds
    return low + (high - low) * torch.rand(rows, generator=generator)


def augment(wave: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Applies a random selection of effects to each row.

    Args:
        wave: (B, N) at 24 kHz.
        config: which effects.
        generator: on the CPU; all draws come from it, in an order that does not depend on the data.

    Returns:
        (B, N), finite, within -1..1.
    """
    rows, device = len(wave), wave.device

    def some(chance: float, effect: Callable[[Tensor, torch.Generator], Tensor]) -> None:
        nonlocal wave
        chosen = torch.rand(rows, generator=generator) < chance
        fork = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
        if chosen.any():
            which = chosen.nonzero()[:, 0].to(device)
            wave = wave.index_copy(0, which, effect(wave[which], fork).to(wave.dtype))

    some(
        config.shift, lambda x, g: shift(x, 2 ** (uniform(g, len(x), config.shift_semitones) / 12))
    )
    some(
        config.room,
        lambda x, g: reverberate(
            x, uniform(g, len(x), config.room_seconds), uniform(g, len(x), config.room_ratio), g
        ),
    )
    some(config.equalise, lambda x, g: equalise(x, config.equalise_db, g))
    some(config.noise, lambda x, g: noise(x, uniform(g, len(x), config.noise_snr), g))
    some(config.low_pass, lambda x, g: low_pass(x, uniform(g, len(x), config.low_pass_hz)))
    some(config.codec, lambda x, g: codec(x, uniform(g, len(x), config.codec_floor)))
    some(config.gain, lambda x, g: x * decibels(uniform(g, len(x), config.gain_db)).to(x)[:, None])
    some(config.clip, lambda x, g: clip(x, uniform(g, len(x), config.clip_share)))
    some(config.mu_law, lambda x, g: mu_law(x))
    return wave.clamp(-1, 1)


def decibels(level: Tensor) -> Tensor:
    """dB -> amplitude factor."""
    factor: Tensor = 10 ** (level / 20)
    return factor


def drawn_gain(wave: Tensor, log_range: tuple[float, float], rng: np.random.Generator) -> float:
    """A factor for wave (N,), its logarithm uniform in `log_range` and limited so that nothing
    clips."""
    loudest = max(float(wave.abs().max()), 1e-3)
    return min(float(np.exp(rng.uniform(*log_range))), 0.99 / loudest)


def drawn_speed(warp: float, share: float, rng: np.random.Generator) -> float:
    """How fast a piece is played: in a share of the pieces its logarithm is uniform within `warp`,
    else 1."""
    return float(np.exp(rng.uniform(-warp, warp))) if rng.random() < share else 1.0
