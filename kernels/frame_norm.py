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
from rtvc.kernels.style_norm import check, register_norm
from rtvc.kernels.toolchain.dispatch import Implementation, use_operator


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


def kernels() -> Any:
    """The module of the kernels, which needs Triton."""
    from rtvc.kernels import frame_norm_triton

    return frame_norm_triton


frame_norm_operator, backward_operator = register_norm(
    "frame_norm",
    reference,
    reference_backward,
    kernels=kernels,
    like=torch.empty_like,
    statistics=lambda x: (x.shape[0], x.shape[2]),
)
"""y (B, C, T), mean and reciprocal std (B, T) from the arguments of `reference`; dx (B, C, T),
dgamma and dbeta (B, C) and dalpha (C,) from those of `reference_backward`."""
