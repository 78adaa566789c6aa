# mypy: disable-error-code="no-untyped-def, untyped-decorator, misc"
"""`harmonic_source` in Triton: a few segments of one row a program; each adds up the phase of all
segments before its own."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from rtvc.kernels.activation_triton import cosine_near_zero, reduce_half_turns, sine_near_zero
from rtvc.kernels.toolchain.launch import Launch, launch, power_of_two

BEFORE = 128
"""Earlier segments added up at a time."""


@triton.jit
def cycles_after(steps, f0, before, hop, sample_rate):
    """Cycles in the first `steps` samples of a segment, float64: the exact sum of a linear ramp of
    frequencies."""
    slope = (f0 - before) / hop
    return (before * steps + slope * steps * (steps + 1.0) / 2.0) / sample_rate


@triton.jit
def kernel(
    f0, voicing, last_f0, last_voicing, phase, pulses, after, frames, hop, sample_rate,
    SEGMENTS: tl.constexpr, SAMPLES: tl.constexpr, BEFORE: tl.constexpr,
):  # fmt: skip
    """f0, voicing (B, frames); last_f0, last_voicing, phase, after (B,); pulses (B, frames *
    hop)."""
    row = tl.program_id(0).to(tl.int64)
    first = tl.program_id(1) * SEGMENTS
    hops, rate = hop.to(tl.float64), sample_rate.to(tl.float64)
    earlier = tl.load(phase + row)
    for start in range(0, first, BEFORE):
        t = start + tl.arange(0, BEFORE)
        here = tl.load(f0 + row * frames + t, t < first, 0.0).to(tl.float64)
        before = tl.load(f0 + row * frames + t - 1, (t > 0) & (t < first), 0.0).to(tl.float64)
        before = tl.where(t == 0, tl.load(last_f0 + row).to(tl.float64), before)
        earlier += tl.sum(tl.where(t < first, cycles_after(hops, here, before, hops, rate), 0.0), 0)
    t = first + tl.arange(0, SEGMENTS)
    here = tl.load(f0 + row * frames + t, t < frames, 0.0).to(tl.float64)
    before = tl.load(f0 + row * frames + t - 1, (t > 0) & (t < frames), 0.0).to(tl.float64)
    before = tl.where(t == 0, tl.load(last_f0 + row).to(tl.float64), before)
    loud = tl.load(voicing + row * frames + t, t < frames, 0.0).to(tl.float32)
    weight = tl.load(voicing + row * frames + t - 1, (t > 0) & (t < frames), 0.0).to(tl.float32)
    weight = tl.where(t == 0, tl.load(last_voicing + row).to(tl.float32), weight)
    total = tl.where(t < frames, cycles_after(hops, here, before, hops, rate), 0.0)
    end = earlier + tl.cumsum(total, 0)
    start = end - total
    n = tl.arange(0, SAMPLES)[None]
    steps = n.to(tl.float64) + 1.0
    here, before, loud, weight = here[:, None], before[:, None], loud[:, None], weight[:, None]
    exact = start[:, None] + cycles_after(steps, here, before, hops, rate)
    cycles = (exact - tl.floor(exact + 0.5)).to(
        tl.float32
    )  # -1/2..1/2: a whole cycle more changes nothing
    along = (n.to(tl.float32) + 1.0) / hop
    frequency = (before + (here - before) * (steps / hops)).to(tl.float32)
    harmonics = 0.5 * sample_rate / tl.maximum(frequency, 1.0)
    whole = tl.floor(harmonics)
    bottom = sine_near_zero(3.141592653589793 * cycles)
    near = tl.abs(bottom) < 1e-4
    # Harmonic m of `cycles` needs only the fraction of m * cycles: exact up to one rounding, and
    # small for the sine.
    upper = (whole + 0.5) * cycles
    turns, r = reduce_half_turns(6.283185307179586 * (upper - tl.floor(upper)))
    ratio = tl.where(turns == 1.0, -sine_near_zero(r), sine_near_zero(r)) / tl.where(
        near, 1.0, bottom
    )
    top = (whole + 1.0) * cycles
    turns, r = reduce_half_turns(6.283185307179586 * (top - tl.floor(top)))
    fade = (harmonics - whole) * tl.where(turns == 1.0, -cosine_near_zero(r), cosine_near_zero(r))
    value = (tl.where(near, whole, 0.5 * (ratio - 1.0)) + fade) * tl.sqrt(2.0 / harmonics)
    value = value * (weight + (loud - weight) * along)
    tl.store(
        pulses + (row * frames + t[:, None]) * hop + n, value, (t < frames)[:, None] & (n < hop)
    )
    tl.store(after + row + tl.zeros((SEGMENTS,), tl.int32), end - tl.floor(end), t == frames - 1)


def forward(
    f0: Tensor, voicing: Tensor, last_f0: Tensor, last_voicing: Tensor, phase: Tensor,
    sample_rate: int, hop: int,
    *, segments: int = 1, start: Launch = launch,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Pulses (B, T * hop) and the phase (B, 1); `segments` a program."""
    batch, frames = f0.shape
    f0, voicing = f0.contiguous(), voicing.contiguous()
    last_f0, last_voicing, phase = (
        last_f0.contiguous(),
        last_voicing.contiguous(),
        phase.contiguous(),
    )
    pulses, after = (
        torch.empty(batch, frames * hop, dtype=voicing.dtype, device=f0.device),
        torch.empty_like(phase),
    )
    arguments = {
        "f0": f0, "voicing": voicing, "last_f0": last_f0, "last_voicing": last_voicing,
        "phase": phase, "pulses": pulses, "after": after, "frames": frames, "hop": hop,
        "sample_rate": sample_rate, "SEGMENTS": segments, "SAMPLES": power_of_two(hop),
        "BEFORE": BEFORE,
    }  # fmt: skip
    start(kernel, (batch, triton.cdiv(frames, segments)), arguments, num_warps=4)
    return pulses, after
