"""The causal AdaIN of the streaming model: normalise every frame over its channels, scale and shift
by the style, activate.

Adaptive layer norm (as in MeanVC and X-VC) in place of AdaIN's statistics over time, which no
stream can know. It carries no state, so a chunk of one frame and an utterance are the same call.
Memory may lie frames first or channels
first: the output lies like x.
"""

from typing import Any

import torch
from torch import Tensor

from rtvc.kernels.activation import activate, activation_gradient, check_activation
from rtvc.kernels.toolchain.dispatch import Implementation, serves, use_operator


def frame_norm(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    activation: str = "none",
    slope: float = 0.2,
    alpha: Tensor | None = None,
    eps: float = 1e-5,
    implementation: Implementation = "auto",
) -> Tensor:
    """activation((1 + gamma) * (x - mean) / std + beta), with the mean and the biased std of each
    frame over channels.

    Args:
        x: (B, C, T), float32, float16, bfloat16, or float64 (reference only), in any memory order.
        gamma: (B, C), any floating dtype.
        beta: (B, C), any floating dtype.
        activation: none, leaky or snake.
        slope: of leaky.
        alpha: (C,), of snake.
        eps: added to the variance.
        implementation: see `rtvc.kernels.toolchain.dispatch`.

    Returns:
        (B, C, T) of x's dtype.

    Raises:
        ValueError: shapes that do not fit.
    """
    check(x, gamma, beta)
    check_activation(activation, alpha, x.shape[1])
    if use_operator(x, implementation):
        y: Tensor = frame_norm_operator(x, gamma, beta, alpha, activation, slope, eps)[0]
        return y
    return reference(x, gamma, beta, alpha, activation, slope, eps)[0]


def check(x: Tensor, gamma: Tensor, beta: Tensor) -> None:
    """Raises ValueError unless the shapes fit each other."""
    if x.ndim != 3:
        raise ValueError(f"x of shape {tuple(x.shape)} came, (B, C, T) was wanted")
    if gamma.shape != x.shape[:2] or beta.shape != x.shape[:2]:
        raise ValueError(
            f"gamma {tuple(gamma.shape)} and beta {tuple(beta.shape)} came, (B, C) ="
            f" {tuple(x.shape[:2])} was wanted of both"
        )


def reference(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    alpha: Tensor | None,
    activation: str,
    slope: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Plain torch: y (B, C, T), and the mean and reciprocal std (B, T) of each frame."""
    work = x if x.dtype == torch.float64 else x.float()
    mean = work.mean(1)
    centred = work - mean[:, None]
    rstd = (centred.square().mean(1) + eps).rsqrt()
    scale, shift = 1 + gamma.to(work.dtype), beta.to(work.dtype)
    z = activate(
        centred * rstd[:, None] * scale[..., None] + shift[..., None], activation, slope, alpha
    )
    return z.to(x.dtype), mean, rstd


def reference_backward(
    dy: Tensor,
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    alpha: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    activation: str,
    slope: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Plain torch: dx (B, C, T), dgamma (B, C), dbeta (B, C), and dalpha (C,), zeros without
    snake."""
    wide = mean.dtype
    scale = 1 + gamma.to(wide)[..., None]
    normal = (x.to(wide) - mean[:, None]) * rstd[:, None]
    by_z, by_alpha = activation_gradient(
        normal * scale + beta.to(wide)[..., None], activation, slope, alpha
    )
    dz = dy.to(wide) * by_z
    dgamma, dbeta, dalpha = (dz * normal).sum(-1), dz.sum(-1), (dy.to(wide) * by_alpha).sum((0, -1))
    g = dz * scale
    dx = (g - g.mean(1, keepdim=True) - normal * (g * normal).mean(1, keepdim=True)) * rstd[:, None]
    return (
        dx.to(x.dtype),
        dgamma.to(gamma.dtype),
        dbeta.to(beta.dtype),
        dalpha.to(gamma.dtype if alpha is None else alpha.dtype),
    )


@torch.library.custom_op("rtvc::frame_norm", mutates_args=())
def frame_norm_operator(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    alpha: Tensor | None,
    activation: str,
    slope: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference`; on a GPU by one kernel."""
    if x.is_cuda and serves(x, gamma, beta):
        from rtvc.kernels.frame_norm_triton import forward

        return forward(x, gamma, beta, alpha, activation, slope, eps)
    return reference(x, gamma, beta, alpha, activation, slope, eps)


@frame_norm_operator.register_fake
def _fake(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    alpha: Tensor | None,
    activation: str,
    slope: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    statistics = x.new_empty(
        x.shape[0], x.shape[2], dtype=torch.float64 if x.dtype == torch.float64 else torch.float32
    )
    return torch.empty_like(x), statistics, torch.empty_like(statistics)


@torch.library.custom_op("rtvc::frame_norm_backward", mutates_args=())
def backward_operator(
    dy: Tensor,
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    alpha: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    activation: str,
    slope: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `reference_backward`; on a GPU by one kernel and the sums of its partial results."""
    if x.is_cuda and serves(dy, x, gamma, beta):
        from rtvc.kernels.frame_norm_triton import backward

        return backward(dy, x, gamma, beta, alpha, mean, rstd, activation, slope)
    return reference_backward(dy, x, gamma, beta, alpha, mean, rstd, activation, slope)


@backward_operator.register_fake
def _fake_backward(
    dy: Tensor,
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    alpha: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    activation: str,
    slope: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    like = gamma if alpha is None else alpha
    return (
        torch.empty_like(x),
        gamma.new_empty(gamma.shape),
        beta.new_empty(beta.shape),
        like.new_empty(gamma.shape[1]),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, activation, slope, _ = inputs
    ctx.save_for_backward(*tensors, output[1], output[2])
    ctx.rest = activation, slope


def _differentiate(
    ctx: Any, dy: Tensor, _dmean: Tensor, _drstd: Tensor
) -> tuple[Tensor | None, ...]:
    dx, dgamma, dbeta, dalpha = backward_operator(dy, *ctx.saved_tensors, *ctx.rest)
    return dx, dgamma, dbeta, None if ctx.saved_tensors[3] is None else dalpha, None, None, None


frame_norm_operator.register_autograd(_differentiate, setup_context=_keep)
