"""Cases of `kernels/source.py`: the pulse train at 24 kHz, segments of 12.5 ms."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from rtvc.benchmarks.kernel.run import Case, Size
from rtvc.kernels.source import harmonic_source, reference

RATE, HOP = 24_000, 300
SHAPES = {"odd": [(3, 5)], "streaming": [(1, 2), (64, 2), (1024, 2)], "large": [(512, 400)]}
"""Batch and segments."""


def plain(
    f0: Tensor, voicing: Tensor, last_f0: Tensor, last_voicing: Tensor, phase: Tensor
) -> tuple[Tensor, ...]:
    """The layer's own chain of operations, phases in float64."""
    return reference(f0, voicing, last_f0, last_voicing, phase, RATE, HOP)


def operator(
    f0: Tensor, voicing: Tensor, last_f0: Tensor, last_voicing: Tensor, phase: Tensor
) -> tuple[Tensor, ...]:
    """The call that the model makes."""
    return harmonic_source(
        f0, voicing, last_f0, last_voicing, phase, sample_rate=RATE, hop=HOP, implementation="fused"
    )


def triton(
    f0: Tensor, voicing: Tensor, last_f0: Tensor, last_voicing: Tensor, phase: Tensor
) -> tuple[Tensor, ...]:
    """The launcher alone."""
    from rtvc.kernels.source_triton import forward

    return forward(f0, voicing, last_f0, last_voicing, phase, RATE, HOP)


def draw(batch: int, frames: int, device: torch.device) -> tuple[Tensor | None, ...]:
    """F0 and phase in float64, voicing in float32."""
    f0 = 60 + 500 * torch.rand(batch, frames + 1, device=device, dtype=torch.float64)
    voicing = torch.rand(batch, frames + 1, device=device)
    return (
        f0[:, 1:],
        voicing[:, 1:],
        f0[:, :1],
        voicing[:, :1],
        torch.rand(batch, 1, device=device, dtype=torch.float64),
    )


def cases(size: Size) -> Iterator[Case]:
    """A chunk of segments, phase in and out."""
    for shape in SHAPES[size]:
        name = f"{shape[0]}x{shape[1]}x{HOP}"
        yield Case(
            "source",
            name,
            partial(draw, *shape),
            plain,
            {"operator": operator, "triton": triton},
            fixed=range(5),
        )
