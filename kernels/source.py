"""The harmonic source in one pass: a band-limited pulse train that follows F0, its phase carried in
float64.

All harmonics below Nyquist sound with equal amplitude and cosine phase, `sum_k cos(k phi)`,
evaluated as a Dirichlet kernel (the hn-NSF idea of Wang et al. 2019 in closed form); F0 and voicing
move linearly over a segment of `hop` samples. A phase in float32 would let the upper harmonics
drift within seconds, so F0 and phases are float64 whatever the pulses are.
"""

from typing import Any

import torch
from torch import Tensor

from rtvc.kernels.toolchain.dispatch import Implementation, register_operator, use_operator

TWO_PI = 2 * torch.pi


def harmonic_source(
    f0: Tensor,
    voicing: Tensor,
    last_f0: Tensor,
    last_voicing: Tensor,
    phase: Tensor,
    *,
    sample_rate: int,
    hop: int,
    steps: Tensor | None = None,
    implementation: Implementation = "auto",
) -> tuple[Tensor, Tensor]:
    """T segments of `hop` samples, and the phase after them.

    Gradients run through the reference, whatever the implementation.

    Args:
        f0: (B, T) Hz at the end of each segment, any floating dtype; float64 keeps long streams
            exact.
        voicing: (B, T) 0..1 at the same place; its dtype is that of the pulses.
        last_f0: (B, 1) at the end of the segment before, any floating dtype.
        last_voicing: (B, 1) at the same place, of voicing's dtype.
        phase: (B, 1) float64, cycles in [0, 1).
        sample_rate: in Hz.
        hop: samples a segment.
        steps: the numbers 1..hop (hop,) in float64, if they are at hand: a graph that is exported
            wants them as a constant of its own.
        implementation: see `rtvc.kernels.toolchain.dispatch`.

    Returns:
        Pulses (B, T * hop) of unit power where voiced, and the phase (B, 1).

    Raises:
        ValueError: shapes that do not fit, or a phase that is not float64.
    """
    if (
        f0.ndim != 2
        or voicing.shape != f0.shape
        or any(x.shape != (f0.shape[0], 1) for x in (last_f0, last_voicing, phase))
    ):
        shapes = [tuple(x.shape) for x in (f0, voicing, last_f0, last_voicing, phase)]
        raise ValueError(
            f"expected f0 and voicing (B, T), last_f0, last_voicing and phase (B, 1), got {shapes}"
        )
    if phase.dtype != torch.float64:
        raise ValueError(
            f"expected a phase of float64, got {phase.dtype}: float32 lets the harmonics drift"
        )
    arguments = (f0, voicing, last_f0, last_voicing, phase, sample_rate, hop)
    differentiated = torch.is_grad_enabled() and any(x.requires_grad for x in arguments[:5])
    if use_operator(voicing, implementation) and not differentiated:
        outputs: tuple[Tensor, Tensor] = source_operator(*arguments)
        return outputs
    return reference(*arguments, steps)


def reference(
    f0: Tensor,
    voicing: Tensor,
    last_f0: Tensor,
    last_voicing: Tensor,
    phase: Tensor,
    sample_rate: int,
    hop: int,
    steps: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Plain torch: pulses (B, T * hop) and the phase (B, 1)."""
    if steps is None:
        steps = torch.arange(1, hop + 1, dtype=torch.float64, device=f0.device)
    f0 = f0.double()
    before, weight = (
        torch.cat([last_f0.double(), f0[:, :-1]], 1),
        torch.cat([last_voicing, voicing[:, :-1]], 1),
    )
    ramp = steps / hop
    # Cycles since the segment's start: the exact sum of a linear ramp of frequencies.
    inside = (
        before[..., None] * steps + ((f0 - before) / hop)[..., None] * steps * (steps + 1) / 2
    ) / sample_rate
    total = inside[..., -1]
    end = phase + torch.cumsum(total, 1)
    cycles = (end - total)[..., None] + inside
    cycles = (cycles - torch.floor(cycles)).to(voicing.dtype)
    frequency = (before[..., None] + (f0 - before)[..., None] * ramp).to(voicing.dtype)
    pulses = dirichlet(cycles, sample_rate / 2 / frequency.clamp(min=1.0))
    pulses = pulses * (weight[..., None] + (voicing - weight)[..., None] * ramp.to(voicing.dtype))
    return pulses.flatten(1), (end - torch.floor(end))[:, -1:]


def dirichlet(cycles: Tensor, harmonics: Tensor) -> Tensor:
    """sum of cos(2 pi k cycles) for k = 1..harmonics, scaled to unit power; the fraction of
    `harmonics` fades the topmost in."""
    whole = torch.floor(harmonics)
    half = torch.pi * cycles
    bottom = torch.sin(half)
    near = bottom.abs() < 1e-4
    ratio = torch.sin((2 * whole + 1) * half) / torch.where(near, torch.ones_like(bottom), bottom)
    total = torch.where(near, whole, (ratio - 1) / 2)
    total = total + (harmonics - whole) * torch.cos(TWO_PI * (whole + 1) * cycles)
    return total * torch.sqrt(2 / harmonics)


def pulses_and_phase(
    f0: Tensor,
    voicing: Tensor,
    last_f0: Tensor,
    last_voicing: Tensor,
    phase: Tensor,
    sample_rate: int,
    hop: int,
) -> tuple[Tensor, Tensor]:
    """What `reference` gives, in memory of its own."""
    pulses, after = reference(f0, voicing, last_f0, last_voicing, phase, sample_rate, hop)
    return pulses, after.clone()


def launch(*arguments: Any) -> tuple[Tensor, Tensor]:
    """`pulses_and_phase` as one kernel."""
    from rtvc.kernels.source_triton import forward

    return forward(*arguments)


source_operator = register_operator(
    "harmonic_source",
    pulses_and_phase,
    kernel=launch,
    fake=lambda f0, voicing, last_f0, last_voicing, phase, sample_rate, hop: (
        voicing.new_empty(f0.shape[0], f0.shape[1] * hop),
        phase.new_empty(phase.shape),
    ),
    reads=(1, 3),  # F0 and phase are float64, which this kernel reads
)
"""Pulses (B, T * hop) and the phase (B, 1), from the arguments of `reference` without `steps`."""
