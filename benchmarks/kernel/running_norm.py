"""Cases of `kernels/running_norm.py`: running statistics carried as state, 384 channels, frames
first in memory."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from rtvc.benchmarks.kernel.run import Case, Size
from rtvc.kernels.running_norm import averages, running_norm

DECAY = 1 - 1 / 80
SHAPES = {  # batch, channels, frames
    "odd": [(3, 131, 2), (2, 40, 37)],
    "streaming": [(1, 384, 2), (64, 384, 2), (1024, 384, 2)],
    "large": [(256, 384, 400)],
}


def plain(x: Tensor, gamma: Tensor, beta: Tensor, moments: Tensor) -> tuple[Tensor, ...]:
    """Averages by matrix products, as the layer has them; statistics in the precision of the
    moments, the rest in that of x."""
    every = averages(x.to(moments.dtype), moments, DECAY)
    mean, square = every.chunk(2, 1)
    normal = (x - mean.to(x.dtype)) * ((square - mean.square()).clamp(min=0) + 1e-5).rsqrt().to(
        x.dtype
    )
    z = torch.nn.functional.leaky_relu(normal * (1 + gamma)[..., None] + beta[..., None], 0.2)
    return z, every[..., -1:].clone()


def operator(x: Tensor, gamma: Tensor, beta: Tensor, moments: Tensor) -> tuple[Tensor, ...]:
    """As a model calls it."""
    return running_norm(
        x, gamma, beta, moments, decay=DECAY, activation="leaky", implementation="fused"
    )


def triton(x: Tensor, gamma: Tensor, beta: Tensor, moments: Tensor) -> tuple[Tensor, ...]:
    """The launcher alone."""
    from rtvc.kernels.running_norm_triton import forward

    return forward(x, gamma, beta, moments, None, DECAY, "leaky", 0.2, 1e-5)


def draw(batch: int, channels: int, frames: int, device: torch.device) -> tuple[Tensor | None, ...]:
    """x, gamma, beta and the moments before."""
    x, mean = (
        torch.randn(batch, frames, channels, device=device).mT,
        0.3 * torch.randn(batch, channels, 1, device=device),
    )
    moments = torch.cat([mean, mean.square() + torch.rand_like(mean) + 0.5], 1)
    return 1.5 * x + 0.3, *torch.randn(2, batch, channels, device=device), moments


def cases(size: Size) -> Iterator[Case]:
    """Forward, state in and out."""
    for shape in SHAPES[size]:
        name = "x".join(map(str, shape))
        yield Case(
            "running_norm",
            f"forward {name}",
            partial(draw, *shape),
            plain,
            {"operator": operator, "triton": triton},
            fixed=(3,),
        )
