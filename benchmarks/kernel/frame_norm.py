"""Cases of `kernels/frame_norm.py`: the streaming model's norm, 384 channels, frames first in
memory, two frames a chunk."""

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from rtvc.benchmarks.kernel.run import Case, Size
from rtvc.kernels.frame_norm import frame_norm

SHAPES = {  # batch, channels, frames
    "odd": [(3, 230, 2), (2, 70, 37)],
    "streaming": [(1, 384, 2), (64, 384, 2), (1024, 384, 2)],
    "large": [(256, 384, 400)],
}


def plain(x: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Tensor, ...]:
    """Layer norm, scale, shift, leaky ReLU."""
    z = F.layer_norm(x.mT, (x.shape[1],)).mT * (1 + gamma)[..., None] + beta[..., None]
    return (F.leaky_relu(z, 0.2),)


def operator(x: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Tensor, ...]:
    """The call that the model makes."""
    return (frame_norm(x, gamma, beta, activation="leaky", implementation="fused"),)


def triton(x: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Tensor, ...]:
    """The launcher alone."""
    from rtvc.kernels.frame_norm_triton import forward

    return (forward(x, gamma, beta, None, "leaky", 0.2, 1e-5)[0],)


def draw(batch: int, channels: int, frames: int, device: torch.device) -> tuple[Tensor | None, ...]:
    """x, and gamma and beta as slices of a wider style."""
    style = torch.randn(batch, 4 * channels, device=device)
    x = 2 * torch.randn(batch, frames, channels, device=device).mT + 1
    return x, style[:, :channels], style[:, channels : 2 * channels]


def cases(size: Size) -> Iterator[Case]:
    """Forward."""
    for shape in SHAPES[size]:
        name = "x".join(map(str, shape))
        yield Case(
            "frame_norm",
            f"forward {name}",
            partial(draw, *shape),
            plain,
            {"operator": operator, "triton": triton},
        )
