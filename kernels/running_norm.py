"""The causal AdaIN with running statistics: exponential averages of every channel, carried from
chunk to chunk as state.

At frame t the signal is normalised by the averages of x and of x squared over the frames up to and
including t, then scaled and shifted by the style and activated. Statistics are float32 whatever the
dtype of x.
"""

from typing import Any

import torch
from torch import Tensor

from rtvc.kernels.activation import activate, activation_gradient, check_activation
from rtvc.kernels.frame_norm import check
from rtvc.kernels.toolchain.dispatch import Implementation, serves, use_operator

SCAN = 32
"""Frames that the reference advances by in one matrix product."""


def running_norm(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    moments: Tensor,
    *,
    decay: float,
    activation: str = "none",
    slope: float = 0.2,
    alpha: Tensor | None = None,
    eps: float = 1e-5,
    implementation: Implementation = "auto",
) -> tuple[Tensor, Tensor]:
    """activation((1 + gamma) * (x - mean) / std + beta), mean and std from the exponential averages
    up to each frame.

    Args:
        x: (B, C, T), float32, float16, bfloat16, or float64 (reference only), in any memory order.
        gamma: (B, C), any floating dtype.
        beta: (B, C), any floating dtype.
        moments: (B, 2 C, 1) float32 (float64 for float64 x): the averages of x, then of x squared,
            before the first frame.
        decay: what an average keeps of itself from one frame to the next, between 0 and 1.
        activation: none, leaky or snake.
        slope: of leaky.
        alpha: (C,), of snake.
        eps: added to the variance.
        implementation: see `rtvc.kernels.toolchain.dispatch`.

    Returns:
        (B, C, T) of x's dtype, and the moments after the last frame.

    Raises:
        ValueError: shapes that do not fit, or a decay out of range.
    """
    check(x, gamma, beta)
    check_activation(activation, alpha, x.shape[1])
    if moments.shape != (x.shape[0], 2 * x.shape[1], 1):
        raise ValueError(
            f"moments of shape {tuple(moments.shape)} came, (B, 2 C, 1) ="
            f" {(x.shape[0], 2 * x.shape[1], 1)} was wanted"
        )
    if not 0 < decay < 1:
        raise ValueError(f"a decay of {decay} came, one between 0 and 1 was wanted")
    if use_operator(x, implementation):
        found: tuple[Tensor, Tensor] = running_norm_operator(
            x, gamma, beta, moments, alpha, decay, activation, slope, eps
        )
        return found
    return reference(x, gamma, beta, moments, alpha, decay, activation, slope, eps)


def scan(values: Tensor, last: Tensor, decay: float, gain: float = 1.0) -> Tensor:
    """y_t = gain * values_t + decay * y_(t-1) over the last axis: values (B, C, T), last (B, C, 1)
    before the first -> (B, C, T)."""
    parts = []
    for part in values.split(SCAN, -1):
        frames = torch.arange(part.shape[-1], device=values.device)
        lag = (frames[:, None] - frames[None]).to(values.dtype)
        kernel = torch.where(lag >= 0, decay ** lag.clamp(min=0), 0) * gain
        y = part @ kernel.mT + last * decay ** (frames + 1).to(values.dtype)
        last = y[..., -1:]
        parts.append(y)
    return torch.cat(parts, -1)


def averages(x: Tensor, moments: Tensor, decay: float) -> Tensor:
    """x (B, C, T), moments (B, 2 C, 1) -> the averages of x and of x squared at every frame, (B, 2
    C, T)."""
    return scan(torch.cat([x, x.square()], 1), moments, decay, 1 - decay)


def reference(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    moments: Tensor,
    alpha: Tensor | None,
    decay: float,
    activation: str,
    slope: float,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Plain torch: y (B, C, T) and the next moments (B, 2 C, 1)."""
    work = x.to(moments.dtype)
    every = averages(work, moments, decay)
    mean, square = every.chunk(2, 1)
    normal = (work - mean) * ((square - mean.square()).clamp(min=0) + eps).rsqrt()
    scale, shift = 1 + gamma.to(work.dtype), beta.to(work.dtype)
    z = activate(normal * scale[..., None] + shift[..., None], activation, slope, alpha)
    return z.to(x.dtype), every[..., -1:].clone()


def reference_backward(
    dy: Tensor,
    dmoments: Tensor,
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    moments: Tensor,
    alpha: Tensor | None,
    decay: float,
    activation: str,
    slope: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Plain torch: dx, dgamma, dbeta, the gradient of the first moments (B, 2 C, 1), and dalpha,
    zeros without snake."""
    work, dy = x.to(moments.dtype), dy.to(moments.dtype)
    mean, square = averages(work, moments, decay).chunk(2, 1)
    variance = square - mean.square()
    rstd = (variance.clamp(min=0) + eps).rsqrt()
    normal, scale = (work - mean) * rstd, 1 + gamma.to(work.dtype)[..., None]
    by_z, by_alpha = activation_gradient(
        normal * scale + beta.to(work.dtype)[..., None], activation, slope, alpha
    )
    dz = dy * by_z
    g = dz * scale
    by_variance = torch.where(variance > 0, -0.5 * g * normal * rstd.square(), 0)
    direct = torch.cat([-g * rstd - 2 * mean * by_variance, by_variance], 1)
    direct = torch.cat([direct[..., :-1], direct[..., -1:] + dmoments.to(work.dtype)], -1)
    # The averages' own recursion, run backwards: the same scan over the mirrored frames.
    adjoint = scan(direct.flip(-1), torch.zeros_like(direct[..., :1]), decay).flip(-1)
    dmean, dsquare = adjoint.chunk(2, 1)
    dx = g * rstd + (1 - decay) * (dmean + 2 * work * dsquare)
    dalpha = (dy * by_alpha).sum((0, -1)).to(gamma.dtype if alpha is None else alpha.dtype)
    return (
        dx.to(x.dtype),
        (dz * normal).sum(-1).to(gamma.dtype),
        dz.sum(-1).to(beta.dtype),
        adjoint[..., :1] * decay,
        dalpha,
    )


@torch.library.custom_op("rtvc::running_norm", mutates_args=())
def running_norm_operator(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    moments: Tensor,
    alpha: Tensor | None,
    decay: float,
    activation: str,
    slope: float,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """As `reference`; on a GPU by one kernel."""
    if x.is_cuda and serves(x, gamma, beta, moments):
        from rtvc.kernels.running_norm_triton import forward

        return forward(x, gamma, beta, moments, alpha, decay, activation, slope, eps)
    return reference(x, gamma, beta, moments, alpha, decay, activation, slope, eps)


@running_norm_operator.register_fake
def _fake(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    moments: Tensor,
    alpha: Tensor | None,
    decay: float,
    activation: str,
    slope: float,
    eps: float,
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), moments.new_empty(moments.shape)


@torch.library.custom_op("rtvc::running_norm_backward", mutates_args=())
def backward_operator(
    dy: Tensor,
    dmoments: Tensor,
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    moments: Tensor,
    alpha: Tensor | None,
    decay: float,
    activation: str,
    slope: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `reference_backward`; on a GPU by one kernel."""
    if x.is_cuda and serves(dy, x, gamma, beta, moments):
        from rtvc.kernels.running_norm_triton import backward

        return backward(dy, dmoments, x, gamma, beta, moments, alpha, decay, activation, slope, eps)
    return reference_backward(
        dy, dmoments, x, gamma, beta, moments, alpha, decay, activation, slope, eps
    )


@backward_operator.register_fake
def _fake_backward(
    dy: Tensor,
    dmoments: Tensor,
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    moments: Tensor,
    alpha: Tensor | None,
    decay: float,
    activation: str,
    slope: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dalpha = (gamma if alpha is None else alpha).new_empty(gamma.shape[1])
    return (
        torch.empty_like(x),
        gamma.new_empty(gamma.shape),
        beta.new_empty(beta.shape),
        moments.new_empty(moments.shape),
        dalpha,
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:5])
    ctx.rest = inputs[5:]


def _differentiate(ctx: Any, dy: Tensor, dmoments: Tensor) -> tuple[Tensor | None, ...]:
    dx, dgamma, dbeta, dfirst, dalpha = backward_operator(
        dy, dmoments, *ctx.saved_tensors, *ctx.rest
    )
    return (
        dx,
        dgamma,
        dbeta,
        dfirst,
        None if ctx.saved_tensors[4] is None else dalpha,
        None,
        None,
        None,
        None,
    )


running_norm_operator.register_autograd(_differentiate, setup_context=_keep)
