"""The streaming AdaIN kernel against plain torch and float64, forward and backward, in either
memory order."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rtvc.kernels.block_step import block_step
from rtvc.kernels.frame_norm import frame_norm, frame_norm_operator
from rtvc.layers.norm import style_norm
from tests.support.kernel_checks import DTYPES, as_good_as_torch, interpreter, leaves, poisoned

interpreter()

from rtvc.kernels.frame_norm_triton import backward, forward, tile  # noqa: E402


@pytest.fixture(autouse=True)
def nan_memory() -> Iterator[None]:
    with poisoned():
        yield


def plain(x: Tensor, gamma: Tensor, beta: Tensor, alpha: Tensor | None, activation: str) -> Tensor:
    """A chain of stock operations in x's own precision."""
    z = F.layer_norm(x.mT, (x.shape[1],)).mT * (1 + gamma)[..., None] + beta[..., None]
    if activation == "leaky":
        return F.leaky_relu(z, 0.2)
    return z if alpha is None else z + (1 / alpha[:, None]) * torch.sin(alpha[:, None] * z) ** 2


def draw(
    batch: int, channels: int, frames: int, activation: str, first: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    x = torch.randn(batch, frames, channels).mT if first else torch.randn(batch, channels, frames)
    style = torch.randn(batch, 3 * channels)  # gamma and beta are slices of a wider style
    alpha = torch.rand(channels) + 0.5 if activation == "snake" else None
    return x * 2 + 1, style[:, :channels], style[:, channels : 2 * channels], alpha


CASES = [  # batch, channels, frames, activation, frames first in memory, elements of a tile
    (7, 230, 2, "leaky", True, 4096),
    (2, 257, 37, "snake", False, 65536),
    (2, 384, 21, "none", True, 4096),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_and_backward_are_as_good_as_plain_torch(
    case: tuple[int, int, int, str, bool, int], dtype: torch.dtype
) -> None:
    batch, channels, frames, activation, first, elements = case
    x, gamma, beta, alpha = (
        None if z is None else z.to(dtype) for z in draw(batch, channels, frames, activation, first)
    )
    assert x is not None and gamma is not None and beta is not None
    y, mean, rstd = forward(x, gamma, beta, alpha, activation, 0.2, 1e-5, elements=elements)
    assert y.stride() == x.stride()
    low, high = (
        leaves(x, gamma, beta, alpha, dtype=dtype),
        leaves(x, gamma, beta, alpha, dtype=torch.float64),
    )
    rough, exact = (plain(a, g, b, c, activation) for a, g, b, c in (low, high))  # type: ignore[arg-type]
    as_good_as_torch("y", y, rough.detach(), exact.detach())
    dy = torch.randn(x.shape).to(dtype)
    found = backward(dy, x, gamma, beta, alpha, mean, rstd, activation, 0.2, elements=elements)
    rough.backward(dy)
    exact.backward(dy.double())
    for name, one, a, b in zip(("dx", "dgamma", "dbeta", "dalpha"), found, low, high, strict=True):
        if a is not None and b is not None:
            assert a.grad is not None and b.grad is not None
            as_good_as_torch(name, one, a.grad, b.grad)


def test_it_is_the_norm_of_the_streaming_model() -> None:
    x, style = torch.randn(2, 12, 7, dtype=torch.float64), torch.randn(2, 24, dtype=torch.float64)
    norm = style_norm(style, "frame")
    identity, past = torch.eye(12, dtype=torch.float64)[:, None], x.new_zeros(2, 12, 0)
    expected, _ = block_step(
        x,
        past,
        identity,
        scale=norm.scale,
        shift=norm.shift,
        norm=norm.norm,
        activation="none",
        plus_one=norm.plus_one,
    )
    torch.testing.assert_close(
        frame_norm(x, style[:, :12], style[:, 12:]), expected, rtol=0, atol=1e-12
    )


def test_a_tile_holds_whole_frames() -> None:
    assert tile(384, 2) == (2, 512)
    assert tile(384, 1000) == (8, 512)
    assert tile(5000, 10) == (1, 8192)


@pytest.mark.parametrize("activation", ["none", "snake"])
def test_the_operator_is_registered_correctly(activation: str) -> None:
    inputs: list[Any] = [
        None if z is None else z.double().detach().requires_grad_()
        for z in draw(2, 5, 4, activation, True)
    ]
    torch.library.opcheck(frame_norm_operator, (*inputs, activation, 0.2, 1e-5))
    torch.use_deterministic_algorithms(False)
    assert torch.autograd.gradcheck(
        lambda *leaf: frame_norm_operator(*leaf, activation, 0.2, 1e-5)[0], inputs
    )


def test_what_does_not_fit_is_refused() -> None:
    x, gamma, beta, _ = draw(2, 5, 4, "none", False)
    with pytest.raises(ValueError, match=r"x of shape \(B, C, T\)"):
        frame_norm(x[0], gamma, beta)
    with pytest.raises(ValueError, match="gamma and beta of shape"):
        frame_norm(x, gamma[:1], beta)
    with pytest.raises(ValueError, match="alpha with 'snake'"):
        frame_norm(x, gamma, beta, activation="snake")
