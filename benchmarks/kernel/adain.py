"""Cases of `kernels/adain.py`: the paper's decoder (512 channels at 80 Hz) and StyleTTS 2's
generator (128 channels at 4.8 kHz and up)."""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from rtvc.benchmarks.kernel.run import Case, Size, Way, size_of
from rtvc.kernels.adain import adain, adain_operator, backward_operator

SHAPES = {  # batch, channels, frames, activation
    "odd": [(3, 70, 61, "snake"), (2, 33, 500, "leaky"), (2, 5, 20_001, "none")],
    "streaming": [(1, 512, 160, "leaky"), (16, 512, 160, "leaky"), (1, 128, 9600, "snake")],
    "large": [(128, 512, 1600, "leaky"), (32, 128, 24_000, "snake")],
}


def plain(activation: str) -> Way:
    """Instance norm, scale, shift and activation by stock operations, as the authors' code has
    them."""

    def run(x: Tensor, gamma: Tensor, beta: Tensor, alpha: Tensor | None) -> tuple[Tensor, ...]:
        z = (1 + gamma)[..., None] * F.instance_norm(x) + beta[..., None]
        if activation == "leaky":
            return (F.leaky_relu(z, 0.2),)
        return (
            z if alpha is None else z + (1 / alpha[:, None]) * torch.sin(alpha[:, None] * z) ** 2,
        )

    return run


def forward(activation: str) -> dict[str, Way]:
    """The operator and the launcher."""

    def operator(
        x: Tensor, gamma: Tensor, beta: Tensor, alpha: Tensor | None
    ) -> tuple[Tensor, ...]:
        return (adain(x, gamma, beta, activation=activation, alpha=alpha, implementation="fused"),)

    def triton(x: Tensor, gamma: Tensor, beta: Tensor, alpha: Tensor | None) -> tuple[Tensor, ...]:
        from rtvc.kernels.adain_triton import forward

        return (forward(x, gamma, beta, None, alpha, activation, 0.2, 1e-5)[0],)

    return {"operator": operator, "triton": triton}


def gradients(chain: Way) -> Way:
    """Gradients of x, gamma and beta by autograd, the forward pass included: it has no other
    way."""

    def run(
        dy: Tensor, x: Tensor, gamma: Tensor, beta: Tensor, alpha: Tensor | None
    ) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            leaves = [z.detach().requires_grad_() for z in (x, gamma, beta)]
            return torch.autograd.grad(chain(*leaves, alpha)[0], leaves, dy)

    return run


def compiled_gradients(activation: str) -> Way:
    """The same of a compiled forward pass, whose backward pass is compiled with it."""
    return gradients(torch.compile(plain(activation), dynamic=False))


def backward(activation: str) -> dict[str, Way]:
    """The operators, forward and backward."""

    def operator(
        dy: Tensor, x: Tensor, gamma: Tensor, beta: Tensor, alpha: Tensor | None
    ) -> tuple[Tensor, ...]:
        _, mean, rstd = adain_operator(x, gamma, beta, None, alpha, activation, 0.2, 1e-5)
        gradients: tuple[Tensor, ...] = backward_operator(
            dy, x, gamma, beta, None, alpha, mean, rstd, activation, 0.2
        )
        return gradients[:3]

    def triton(
        dy: Tensor, x: Tensor, gamma: Tensor, beta: Tensor, alpha: Tensor | None
    ) -> tuple[Tensor, ...]:
        from rtvc.kernels import adain_triton

        _, mean, rstd = adain_triton.forward(x, gamma, beta, None, alpha, activation, 0.2, 1e-5)
        return adain_triton.backward(dy, x, gamma, beta, None, alpha, mean, rstd, activation, 0.2)[
            :3
        ]

    return {"operator": operator, "triton": triton}


def both_passes(inputs: Sequence[Tensor | None]) -> int:
    """x is read twice, dy once; y and dx are written."""
    return 5 * size_of(inputs[:1])


def draw(
    batch: int, channels: int, frames: int, activation: str, device: torch.device
) -> tuple[Tensor | None, ...]:
    """x, gamma, beta and alpha."""
    x, gamma, beta = (
        torch.randn(batch, channels, *rest, device=device) for rest in ((frames,), (), ())
    )
    return (
        2 * x + 1,
        gamma,
        beta,
        torch.rand(channels, device=device) + 0.5 if activation == "snake" else None,
    )


def draw_trained(
    batch: int, channels: int, frames: int, activation: str, device: torch.device
) -> tuple[Tensor | None, ...]:
    """dy before them."""
    return torch.randn(batch, channels, frames, device=device), *draw(
        batch, channels, frames, activation, device
    )


def cases(size: Size) -> Iterator[Case]:
    """Forward, and training's forward and backward together."""
    for shape in SHAPES[size]:
        batch, channels, frames, activation = shape
        name = f"{activation} {batch}x{channels}x{frames}"
        yield Case(
            "adain",
            f"forward {name}",
            partial(draw, *shape),
            plain(activation),
            forward(activation),
        )
        yield Case(
            "adain",
            f"forward and backward {name}",
            partial(draw_trained, *shape),
            gradients(plain(activation)),
            backward(activation),
            traffic=both_passes,
            compiled=partial(compiled_gradients, activation),
        )
