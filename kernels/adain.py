"""Adaptive instance normalisation with its activation, in one pass: the non-causal AdaIN of the
paper's decoders.

Huang and Belongie 2017 (arXiv 1703.06868); as used by StyleTTS-VC (arXiv 2212.14227, section 3.1)
and StyleTTS 2, where the style gives `gamma` and `beta` and the normalised signal is scaled by `1 +
gamma`. Statistics are float32 whatever the dtype of x. Rows may have lengths of their own: frames
past a row's end enter no statistic and come out as zero.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rtvc.kernels.activation import activate, activation_gradient, check_activation
from rtvc.kernels.style_norm import check, register_norm
from rtvc.kernels.toolchain.dispatch import Implementation, use_operator


def adain(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    lengths: Tensor | None = None,
    activation: str = "none",
    slope: float = 0.2,
    alpha: Tensor | None = None,
    eps: float = 1e-5,
    implementation: Implementation = "auto",
) -> Tensor:
    """activation((1 + gamma) * (x - mean) / std + beta), with the mean and the biased std of each
    row over time.

    Args:
        x: (B, C, T), float32, float16, bfloat16, or float64 (reference only).
        gamma: (B, C), any floating dtype.
        beta: (B, C), any floating dtype.
        lengths: (B,) int32 or int64, frames of each row; None: all of them.
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
    if lengths is not None and lengths.shape != x.shape[:1]:
        raise ValueError(f"expected lengths of shape ({x.shape[0]},), got {tuple(lengths.shape)}")
    check_activation(activation, alpha, x.shape[1])
    if use_operator(x, implementation):
        y: Tensor = adain_operator(x, gamma, beta, lengths, alpha, activation, slope, eps)[0]
        return y
    if lengths is None:
        return stock(x, gamma, beta, alpha, activation, slope, eps)
    return reference(x, gamma, beta, lengths, alpha, activation, slope, eps)[0]


def stock(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    alpha: Tensor | None,
    activation: str,
    slope: float,
    eps: float,
) -> Tensor:
    """torch's own instance norm, which differentiates faster than `reference` and gives no
    statistics: y (B, C, T)."""
    work = x if x.dtype == torch.float64 else x.float()
    scale, shift = 1 + gamma.to(work.dtype), beta.to(work.dtype)
    z = torch.addcmul(shift[..., None], scale[..., None], F.instance_norm(work, eps=eps))
    return activate(z, activation, slope, alpha).to(x.dtype)


def reference(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    lengths: Tensor | None,
    alpha: Tensor | None,
    activation: str,
    slope: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Plain torch: y (B, C, T), and the mean and reciprocal std (B, C) of each row."""
    work = x if x.dtype == torch.float64 else x.float()
    scale, shift = 1 + gamma.to(work.dtype), beta.to(work.dtype)
    if lengths is None:
        inside = None
        mean = work.mean(-1)
        centred = work - mean[..., None]
        variance = centred.square().mean(-1)
    else:
        inside = (torch.arange(x.shape[-1], device=x.device) < lengths[:, None])[:, None]
        frames = lengths.clamp(min=1).to(work.dtype)[:, None]
        mean = torch.where(inside, work, 0).sum(-1) / frames
        centred = torch.where(inside, work - mean[..., None], 0)
        variance = centred.square().sum(-1) / frames
    rstd = (variance + eps).rsqrt()
    z = activate(centred * (rstd * scale)[..., None] + shift[..., None], activation, slope, alpha)
    if inside is not None:
        z = torch.where(inside, z, 0)
    return z.to(x.dtype), mean, rstd


def reference_backward(
    dy: Tensor,
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    lengths: Tensor | None,
    alpha: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    activation: str,
    slope: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Plain torch: dx (B, C, T), dgamma (B, C), dbeta (B, C), and dalpha (C,), zeros without
    snake."""
    wide = mean.dtype
    frames = (
        torch.full((len(x), 1), x.shape[-1], dtype=wide, device=x.device)
        if lengths is None
        else lengths.clamp(min=1).to(wide)[:, None]
    )
    scale = 1 + gamma.to(wide)
    normal = (x.to(wide) - mean[..., None]) * rstd[..., None]
    by_z, by_alpha = activation_gradient(
        normal * scale[..., None] + beta.to(wide)[..., None], activation, slope, alpha
    )
    dy = dy.to(wide)
    if lengths is not None:
        inside = (torch.arange(x.shape[-1], device=x.device) < lengths[:, None])[:, None]
        dy, normal = torch.where(inside, dy, 0), torch.where(inside, normal, 0)
    dz = dy * by_z
    dgamma, dbeta = (dz * normal).sum(-1), dz.sum(-1)
    dx = (dz - (dbeta / frames)[..., None] - normal * (dgamma / frames)[..., None]) * (
        rstd * scale
    )[..., None]
    if lengths is not None:
        dx = torch.where(inside, dx, 0)
    dalpha = (dy * by_alpha).sum((0, -1))
    return (
        dx.to(x.dtype),
        dgamma.to(gamma.dtype),
        dbeta.to(beta.dtype),
        dalpha.to(gamma.dtype if alpha is None else alpha.dtype),
    )


def kernels() -> Any:
    """The module of the kernels, which needs Triton."""
    from rtvc.kernels import adain_triton

    return adain_triton


adain_operator, backward_operator = register_norm(
    "adain",
    reference,
    reference_backward,
    kernels=kernels,
    like=lambda x: x.new_empty(x.shape),
    statistics=lambda x: x.shape[:2],
)
"""y (B, C, T), mean and reciprocal std (B, C) from the arguments of `reference`; dx (B, C, T),
dgamma and dbeta (B, C) and dalpha (C,) from those of `reference_backward`."""
