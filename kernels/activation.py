"""The activations that the fused kernels end in, in plain torch."""

from collections.abc import Collection
from typing import Literal

import torch
from torch import Tensor

Activation = Literal["none", "leaky", "snake"]
"""`leaky`: leaky ReLU. `snake`: z + sin(alpha z)^2 / alpha (Ziyin et al. 2020, arXiv 2006.08195;
StyleTTS 2's generators)."""

CODES: dict[str, int] = {"none": 0, "leaky": 1, "snake": 2}
"""The activations as compile-time constants of the kernels."""


def activate(z: Tensor, activation: str, slope: float, alpha: Tensor | None) -> Tensor:
    """z (B, C, T) -> the activation of z; alpha (C,) belongs to `snake`, slope to `leaky`."""
    if activation == "leaky":
        return torch.nn.functional.leaky_relu(z, slope)
    if activation == "snake":
        assert alpha is not None
        a = alpha.to(z.dtype)[:, None]
        return z + torch.sin(a * z).square() / a
    return z


def activation_gradient(
    z: Tensor, activation: str, slope: float, alpha: Tensor | None
) -> tuple[Tensor, Tensor]:
    """z (B, C, T) -> the derivatives of the activation by z and by alpha, both (B, C, T)."""
    if activation == "leaky":
        return torch.where(z > 0, 1.0, slope).to(z.dtype), torch.zeros_like(z)
    if activation == "snake":
        assert alpha is not None
        a = alpha.to(z.dtype)[:, None]
        double = torch.sin(2 * a * z)
        return 1 + double, (z * double - torch.sin(a * z).square() / a) / a
    return torch.ones_like(z), torch.zeros_like(z)


def check_activation(
    activation: str, alpha: Tensor | None, channels: int, known: Collection[str] = CODES
) -> None:
    """Raises ValueError unless the activation is known and alpha is there exactly when it is
    needed."""
    if activation not in known:
        raise ValueError(f"expected an activation of {sorted(known)}, got {activation!r}")
    if (alpha is not None) != (activation == "snake"):
        raise ValueError(
            f"expected alpha with 'snake' and with it alone, got activation {activation!r}"
            f" {'with' if alpha is not None else 'without'} it"
        )
    if alpha is not None and alpha.shape != (channels,):
        raise ValueError(
            f"expected alpha of shape ({channels},), one value a channel, got {tuple(alpha.shape)}"
        )
