"""The harmonic source kernel against plain torch and float64, its phase over minutes, and as a
registered operator."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from rtvc.kernels.source import harmonic_source, reference, source_operator
from rtvc.layers.source import HarmonicSource
from tests.support.kernel_checks import as_good_as_torch, error, interpreter, poisoned

interpreter()

from rtvc.kernels.source_triton import forward  # noqa: E402

RATE = 24_000


@pytest.fixture(autouse=True)
def nan_memory() -> Iterator[None]:
    with poisoned():
        yield


def draw(batch: int, frames: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    f0 = 60 + 500 * torch.rand(batch, frames + 1)
    voicing = torch.rand(batch, frames + 1)
    return (
        f0[:, 1:],
        voicing[:, 1:],
        f0[:, :1],
        voicing[:, :1],
        torch.rand(batch, 1, dtype=torch.float64),
    )


def wide(tensors: tuple[Tensor, ...]) -> list[Tensor]:
    return [x.double() for x in tensors]


@pytest.mark.parametrize(
    ("batch", "frames", "hop", "segments"),
    [(3, 2, 300, 2), (1, 1, 300, 1), (2, 140, 60, 64), (2, 9, 7, 4)],
)
def test_pulses_and_phase_are_as_good_as_plain_torch(
    batch: int, frames: int, hop: int, segments: int
) -> None:
    inputs = draw(batch, frames)
    pulses, phase = forward(*inputs, RATE, hop, segments=segments)
    rough, rough_phase = reference(*inputs, RATE, hop)
    exact, _ = reference(*wide(inputs), RATE, hop)  # type: ignore[arg-type, call-arg]
    as_good_as_torch("pulses", pulses, rough, exact)
    assert phase.dtype == torch.float64
    turns = (phase - rough_phase + 0.5) % 1 - 0.5
    assert turns.abs().max() < 1e-12 * frames


def test_the_phase_does_not_drift_where_float32_would() -> None:
    """A hundred seconds, 500 segments a call: the phase equals that of one float64 sum; a float32
    sum is off by far."""
    f0, one = torch.full((1, 500), 217.3), torch.ones(1, 500)
    phase = torch.zeros(1, 1, dtype=torch.float64)
    for _ in range(16):
        _, phase = forward(f0, one, f0[:, :1], one[:, :1], phase, RATE, 300, segments=512)
    segment = float(f0[0, 0]) * 300 / RATE
    wanted = 16 * 500 * segment
    low = np.add.accumulate(np.full(8000, segment, np.float32))[-1]
    assert abs((float(phase) - wanted + 0.5) % 1 - 0.5) < 1e-6
    assert abs((float(low) - wanted + 0.5) % 1 - 0.5) > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_the_source_of_the_streaming_model_in_any_chunking(dtype: torch.dtype) -> None:
    """Sums of phases differ in the last bits of float64 with the cut, so that cycles may round to
    the next number of the pulses' type: the slope of H harmonics is at most pi H (H + 1) a cycle,
    times sqrt(2 / H)."""
    layer = HarmonicSource(RATE, 32).to(dtype)  # a power of two: the ramp is exact
    f0, voicing, *_ = draw(2, 12)
    f0, voicing = f0.double(), voicing.to(dtype)
    state = layer.initial(2)
    wanted, last = layer(f0, voicing, state)
    before, weight, phase, parts = state.f0, state.voicing, state.phase, list[Tensor]()
    for size in (1, 7, 4):
        at = sum(part.shape[1] for part in parts) // 32
        a, b = f0[:, at : at + size], voicing[:, at : at + size]
        pulses, phase = harmonic_source(a, b, before, weight, phase, sample_rate=RATE, hop=32)
        before, weight = a[:, -1:], b[:, -1:]
        parts.append(pulses)
    harmonics = RATE / 2 / 60
    slope = math.pi * harmonics * (harmonics + 1) * math.sqrt(2 / harmonics)
    assert parts[0].dtype == wanted.dtype == dtype
    assert (torch.cat(parts, 1) - wanted).abs().max() < slope * max(torch.finfo(dtype).eps, 1e-12)
    assert error(phase, last.phase) < 1e-12


def test_the_operator_is_registered_and_gradients_take_the_reference() -> None:
    inputs = draw(2, 3)
    torch.library.opcheck(source_operator, (*inputs, RATE, 8))
    f0 = inputs[0].clone().requires_grad_()
    pulses, _ = harmonic_source(f0, *inputs[1:], sample_rate=RATE, hop=8, implementation="fused")
    pulses.square().sum().backward()
    assert f0.grad is not None and f0.grad.abs().sum() > 0


def test_what_does_not_fit_is_refused() -> None:
    f0, voicing, last, weight, phase = draw(2, 3)
    with pytest.raises(ValueError, match="expected a phase of float64"):
        harmonic_source(f0, voicing, last, weight, phase.float(), sample_rate=RATE, hop=8)
    with pytest.raises(ValueError, match=r"f0 and voicing \(B, T\)"):
        harmonic_source(f0, voicing[:, :2], last, weight, phase, sample_rate=RATE, hop=8)
