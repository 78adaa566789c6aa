"""Cases of `kernels/istft.py`: iSTFTNet's head (n_fft 20, hop 5) and the streaming model's
synthesis (n_fft 600, hop 150)."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from rtvc.benchmarks.kernel.run import Case, Size, Way
from rtvc.kernels.istft import Form, istft, reference, synthesis_matrix

SHAPES: dict[str, list[tuple[int, int, int, int, Form]]] = {  # batch, n_fft, hop, frames, form
    "odd": [
        (3, 20, 5, 61, "sine"),
        (2, 22, 8, 13, "polar"),
        (5, 60, 15, 7, "complex"),
        (1, 600, 150, 4, "complex"),
    ],
    "streaming": [
        (1, 20, 5, 120, "sine"),
        (64, 20, 5, 120, "sine"),
        (1, 600, 150, 4, "complex"),
        (256, 600, 150, 4, "complex"),
    ],
    "large": [(128, 20, 5, 24_000, "sine"), (256, 600, 150, 200, "complex")],
}


def plain(hop: int, form: Form) -> Way:
    """exp and sine, the inverse transform as a matrix product, overlap-add as shifted sums, in the
    precision of x."""

    def run(x: Tensor, tail: Tensor, matrix: Tensor) -> tuple[Tensor, ...]:
        y, after = reference(x, tail.to(x.dtype), matrix.to(x.dtype), hop, form)
        return y, after.to(tail.dtype)

    return run


def ways(hop: int, form: Form, size: int) -> dict[str, Way]:
    """The operator, and the launchers in Triton and, for small windows where that compiles, in CUDA
    C++."""

    def operator(x: Tensor, tail: Tensor, matrix: Tensor) -> tuple[Tensor, ...]:
        return istft(x, tail, matrix, hop=hop, form=form, implementation="fused")

    def triton(x: Tensor, tail: Tensor, matrix: Tensor) -> tuple[Tensor, ...]:
        from rtvc.kernels.istft_triton import forward

        return forward(x, tail, matrix, hop, form)

    def cuda(x: Tensor, tail: Tensor, matrix: Tensor) -> tuple[Tensor, ...]:
        from rtvc.kernels.istft_cuda import forward

        return forward(x, tail, matrix, hop, form)

    from rtvc.kernels.istft_cuda import available

    implementations: dict[str, Way] = {"operator": operator, "triton": triton}
    return (
        implementations | {"cuda": cuda}
        if torch.cuda.is_available() and available(size) and available(size, torch.bfloat16)
        else implementations
    )


def draw(
    batch: int, window: int, hop: int, frames: int, form: Form, device: torch.device
) -> tuple[Tensor | None, ...]:
    """x, tail and matrix; the longer window frames first in memory, as the streaming model has
    it."""
    x = torch.randn(batch, frames, window + 2, device=device).mT
    x = x if window > 32 else x.contiguous()
    if form != "complex":
        x[:, window // 2 + 1 :] *= 3
    return (
        x,
        torch.randn(batch, 1, window - hop, device=device),
        synthesis_matrix(window, hop).float().to(device),
    )


def cases(size: Size) -> Iterator[Case]:
    """One chunk, tail in and out."""
    for shape in SHAPES[size]:
        batch, window, hop, frames, form = shape
        name = f"{form} {window}/{hop} {batch}x{frames}"
        yield Case(
            "istft",
            name,
            partial(draw, *shape),
            plain(hop, form),
            ways(hop, form, window),
            fixed=(1, 2),
        )
