"""What the styled norms `adain` and `frame_norm` share: checks, fake gradients, and autograd.

Both are operators y, mean, rstd = f(x, gamma, beta, …, alpha, activation, slope, eps), and both
have a backward operator dx, dgamma, dbeta, dalpha = b(dy, x, gamma, beta, …, alpha, mean, rstd,
activation, slope).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rtvc.kernels.toolchain.dispatch import register_operator


def check(x: Tensor, gamma: Tensor, beta: Tensor) -> None:
    """Raises ValueError unless the shapes fit each other."""
    if x.ndim != 3:
        raise ValueError(f"expected x of shape (B, C, T), got {tuple(x.shape)}")
    if gamma.shape != x.shape[:2] or beta.shape != x.shape[:2]:
        raise ValueError(
            f"expected gamma and beta of shape (B, C) = {tuple(x.shape[:2])}, got"
            f" {tuple(gamma.shape)} and {tuple(beta.shape)}"
        )


def fake_statistics(x: Tensor, *shape: int) -> tuple[Tensor, Tensor]:
    """Mean and reciprocal deviation without their values: float32 whatever x is, unless float64."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    return x.new_empty(shape, dtype=wide), x.new_empty(shape, dtype=wide)


def fake_gradients(
    dx: Tensor, gamma: Tensor, beta: Tensor, alpha: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a backward operator gives, without its values; dalpha (C,) comes without alpha too."""
    like = gamma if alpha is None else alpha
    return (
        dx,
        gamma.new_empty(gamma.shape),
        beta.new_empty(beta.shape),
        like.new_empty(gamma.shape[1]),
    )


def register_norm(
    name: str,
    reference: Callable[..., Any],
    reference_backward: Callable[..., Any],
    *,
    kernels: Callable[[], Any],
    like: Callable[[Tensor], Tensor],
    statistics: Callable[[Tensor], Sequence[int]],
) -> tuple[Any, Any]:
    """The operators of a norm and of its gradient, from which gradients of the first run.

    Args:
        name: of the first; the other's ends in `_backward`.
        reference: see `register_operator`.
        reference_backward: the same of the gradient.
        kernels: imports the module that launches them, as `forward` and `backward`.
        like: x -> an empty tensor as y and dx lie in memory.
        statistics: x -> the shape of mean and rstd.
    """
    operator = register_operator(
        name,
        reference,
        kernel=lambda *given: kernels().forward(*given),
        fake=lambda x, *_: (like(x), *fake_statistics(x, *statistics(x))),
    )
    backward = register_operator(
        f"{name}_backward",
        reference_backward,
        kernel=lambda *given: kernels().backward(*given),
        # alpha stands before mean, rstd, activation and slope
        fake=lambda dy, x, gamma, beta, *rest: fake_gradients(like(x), gamma, beta, rest[-5]),
        reads=(0, 1, 2, 3),
    )
    operator.register_autograd(partial(_differentiate, backward), setup_context=_keep)
    return operator, backward


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, activation, slope, _ = inputs
    ctx.save_for_backward(*tensors, output[1], output[2])
    ctx.rest = activation, slope


def _differentiate(
    backward: Callable[..., tuple[Tensor, ...]],
    ctx: Any,
    dy: Tensor,
    _dmean: Tensor,
    _drstd: Tensor,
) -> tuple[Tensor | None, ...]:
    *given, alpha, _mean, _rstd = ctx.saved_tensors
    dx, dgamma, dbeta, dalpha = backward(dy, *ctx.saved_tensors, *ctx.rest)
    # None for lengths, which `adain` has, and for activation, slope and eps.
    between = (None,) * (len(given) - 3)
    return dx, dgamma, dbeta, *between, None if alpha is None else dalpha, None, None, None
