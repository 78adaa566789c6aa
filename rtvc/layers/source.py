"""The harmonic source: a band-limited pulse train that follows F0 (the hn-NSF idea of HiFTNet, arXiv 2309.09493, in closed form)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

TWO_PI = 2 * torch.pi


class SourceState(NamedTuple):
    """What the pulse train carries from one chunk to the next."""

    f0: Tensor  # (B, 1) Hz at the end of the last segment, float64
    voicing: Tensor  # (B, 1) 0..1 at the same place
    phase: Tensor  # (B, 1) cycles in [0, 1), float64: in float32 the upper harmonics would drift apart within seconds


class HarmonicSource(nn.Module):
    """`pulses, state = source(f0, voicing, state)`: one segment of `hop` samples a frame.

    F0 and voicing move linearly over a segment, from the last frame's value to this frame's. All harmonics below
    Nyquist sound with equal amplitude and cosine phase, `sum_k cos(k phi)`, evaluated as a Dirichlet kernel; the topmost
    fades in with the fraction of it that fits, so that the number of harmonics never jumps. The first phase is zero:
    the source is deterministic.
    """

    ramp: Tensor

    def __init__(self, sample_rate: int, hop: int, resting_f0: float = 120.0) -> None:
        super().__init__()
        self.sample_rate, self.hop, self.resting_f0 = sample_rate, hop, resting_f0
        self.register_buffer("ramp", torch.arange(1, hop + 1) / hop, persistent=False)

    def initial(self, batch: int) -> SourceState:
        """A silent source at its resting pitch."""
        zeros = self.ramp.new_zeros(batch, 1)
        return SourceState(zeros.double() + self.resting_f0, zeros, zeros.double())

    def forward(self, f0: Tensor, voicing: Tensor, state: SourceState) -> tuple[Tensor, SourceState]:
        """f0 (B, T) in Hz and voicing (B, T) in 0..1, at the end of each segment -> pulses (B, T * hop) of unit power where voiced."""
        f0 = f0.double()
        before = torch.cat([state.f0, f0[:, :-1]], 1)
        weight = torch.cat([state.voicing, voicing[:, :-1]], 1)
        steps = torch.round(self.ramp.double() * self.hop)  # 1..hop, exactly: what float32 rounds off the ramp is audible to no one, but
        ramp = steps / self.hop  # upper harmonics multiply it, and streams of another cut or kernel would differ by it
        # Cycles since the segment's start: the exact sum of a linear ramp of frequencies.
        inside = (before[..., None] * steps + ((f0 - before) / self.hop)[..., None] * steps * (steps + 1) / 2) / self.sample_rate
        total = inside[..., -1]
        end = state.phase + torch.cumsum(total, 1)
        start = end - total
        cycles = start[..., None] + inside
        cycles = (cycles - torch.floor(cycles)).to(voicing.dtype)
        frequency = (before[..., None] + (f0 - before)[..., None] * ramp).to(voicing.dtype)
        pulses = self.kernel(cycles, self.sample_rate / 2 / frequency.clamp(min=1.0))
        pulses = pulses * (weight[..., None] + (voicing - weight)[..., None] * self.ramp)
        return pulses.flatten(1), SourceState(f0[:, -1:], voicing[:, -1:], (end - torch.floor(end))[:, -1:])

    @staticmethod
    def kernel(cycles: Tensor, harmonics: Tensor) -> Tensor:
        """sum of cos(2 pi k cycles) for k = 1..harmonics (fractional), scaled to unit power."""
        whole = torch.floor(harmonics)
        half = torch.pi * cycles
        bottom = torch.sin(half)
        near = bottom.abs() < 1e-4
        ratio = torch.sin((2 * whole + 1) * half) / torch.where(near, torch.ones_like(bottom), bottom)
        total = torch.where(near, whole, (ratio - 1) / 2)
        total = total + (harmonics - whole) * torch.cos(TWO_PI * (whole + 1) * cycles)
        return total * torch.sqrt(2 / harmonics)
