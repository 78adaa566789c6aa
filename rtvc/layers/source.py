"""The harmonic source: a band-limited pulse train that follows F0 (the hn-NSF idea of HiFTNet,
arXiv 2309.09493, in closed form)."""

from typing import NamedTuple

import torch
from torch import Tensor

from rtvc.kernels.source import harmonic_source
from rtvc.layers.dispatch import Dispatched


class SourceState(NamedTuple):
    """What the pulse train carries from one chunk to the next."""

    f0: Tensor  # (B, 1) Hz at the end of the last segment, float64
    voicing: Tensor  # (B, 1) 0..1 at the same place
    # (B, 1) cycles in [0, 1), float64: in float32 the upper harmonics would drift apart within
    # seconds
    phase: Tensor


class HarmonicSource(Dispatched):
    """`pulses, state = source(f0, voicing, state)`: one segment of `hop` samples a frame.

    F0 and voicing move linearly over a segment, from the last frame's value to this frame's. All
    harmonics below Nyquist sound with equal amplitude and cosine phase, `sum_k cos(k phi)`,
    evaluated as a Dirichlet kernel; the topmost fades in with the fraction of it that fits, so that
    the number of harmonics never jumps. The first phase is zero: the source is deterministic.
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

    def forward(
        self, f0: Tensor, voicing: Tensor, state: SourceState
    ) -> tuple[Tensor, SourceState]:
        """f0 (B, T) in Hz and voicing (B, T) in 0..1, at the end of each segment -> pulses (B, T *
        hop) of unit power where voiced."""
        # 1..hop exactly, also where the buffer was cast to half: what is rounded off is audible to
        # no one, but upper harmonics multiply it, and streams of another cut or kernel would differ
        # by it.
        steps = torch.round(self.ramp.double() * self.hop)
        pulses, phase = harmonic_source(
            f0.double(),
            voicing,
            *state,
            sample_rate=self.sample_rate,
            hop=self.hop,
            steps=steps,
            implementation=self.implementation,
        )
        return pulses, SourceState(f0[:, -1:].double(), voicing[:, -1:], phase)
