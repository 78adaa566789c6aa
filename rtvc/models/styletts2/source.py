"""The harmonic source: a sum of sines that follows F0, with noise where speech is unvoiced.

Source: Wang et al. 2019, "Neural source-filter-based waveform model" (hn-NSF), as used in HiFTNet
and StyleTTS 2.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VOICED_ABOVE = 10.0
"""F0 in Hz above which a frame counts as voiced."""

SINE_LEVEL = 0.1
VOICED_NOISE = 0.003
UNVOICED_NOISE = SINE_LEVEL / 3


@dataclass(frozen=True)
class Draws:
    """Where random numbers come from: `Draws()` torch's global generator, `Draws.seeded(n)` the
    same ones each time on every device, `Draws.zeros()` none at all.

    Attributes:
        generator: numbers are drawn on its device, then moved to where they are wanted.
        level: standard deviation of the Gaussian ones.
    """

    generator: torch.Generator | None = None
    level: float = 1.0

    @classmethod
    def seeded(cls, seed: int) -> "Draws":
        """Reproducible draws. Each call on the result goes on in the same sequence."""
        return cls(torch.Generator().manual_seed(seed))

    @classmethod
    def zeros(cls) -> "Draws":
        """Every draw is 0: what the golden vectors were made with."""
        return cls(level=0.0)

    def normal(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Gaussian numbers of the given shape, on the device and in the dtype of `like`."""
        if self.level == 0.0:
            return like.new_zeros(shape)
        if (
            self.generator is None
        ):  # named even if it is None, it keeps torch from compiling for any length
            return self.level * torch.randn(shape, device=like.device).to(like)
        return self.level * torch.randn(
            shape, generator=self.generator, device=self.generator.device
        ).to(like)

    def uniform(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Numbers between 0 and 1, on the device and in the dtype of `like`."""
        if self.level == 0.0:
            return like.new_zeros(shape)
        if self.generator is None:
            return torch.rand(shape, device=like.device).to(like)
        return torch.rand(shape, generator=self.generator, device=self.generator.device).to(like)


class HarmonicSource(nn.Module):
    """F0 at the frame rate -> one excitation signal at the sample rate.

    The published code also draws an initial phase for each overtone, but adds it to the one sample
    that its linear down-sampling never reads: all sines start in phase, there as here.
    """

    multiples: Tensor

    def __init__(self, upsample: int, sample_rate: int = 24000, harmonics: int = 9) -> None:
        super().__init__()
        self.upsample, self.sample_rate = upsample, sample_rate
        self.register_buffer(
            "multiples", torch.arange(1.0, harmonics + 1)[:, None], persistent=False
        )
        self.l_linear = nn.Linear(harmonics, 1)

    def sines(self, f0: Tensor) -> Tensor:
        """f0 (B, T) Hz -> the fundamental and its overtones at unit level, (B, H, N = T *
        upsample)."""
        # In float32 at least, whatever the model runs in: phases grow with time.
        f0 = f0.to(torch.promote_types(f0.dtype, torch.float32))
        cycles = (f0[:, None] * self.multiples.to(f0.dtype) / self.sample_rate) % 1
        phase = cycles.cumsum(-1) * (2 * math.pi) * self.upsample
        return F.interpolate(phase, scale_factor=self.upsample, mode="linear").sin()

    def forward(self, f0: Tensor, draws: Draws) -> Tensor:
        """f0 (B, T) Hz -> excitation (B, 1, N = T * upsample)."""
        with torch.no_grad():
            sines = self.sines(f0)
            voiced = (
                (f0 > VOICED_ABOVE).to(sines.dtype).repeat_interleave(self.upsample, -1)[:, None]
            )
            noise = draws.normal(tuple(sines.shape), sines)
            waves = (
                SINE_LEVEL * voiced * sines
                + (voiced * VOICED_NOISE + (1 - voiced) * UNVOICED_NOISE) * noise
            )
        return torch.tanh(self.l_linear(waves.mT.to(self.l_linear.weight.dtype))).mT
