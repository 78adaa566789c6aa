"""The kernel of AdaIN with running statistics against plain torch and float64: output, carried
state, and all gradients."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from rtvc.kernels.activation import activate
from rtvc.kernels.running_norm import running_norm, running_norm_operator
from rtvc.layers.norm import StyleNorm
from tests.support.kernel_checks import DTYPES, as_good_as_torch, interpreter, leaves, poisoned

interpreter()

from rtvc.kernels.running_norm_triton import backward, forward  # noqa: E402

DECAY = 1 - 1 / 20


@pytest.fixture(autouse=True)
def nan_memory() -> Iterator[None]:
    with poisoned():
        yield


def plain(
    x: Tensor, gamma: Tensor, beta: Tensor, moments: Tensor, alpha: Tensor | None, activation: str
) -> tuple[Tensor, Tensor]:
    """Frame by frame, statistics in the precision of the moments and the rest in that of x."""
    mean, square = moments[..., 0].chunk(2, 1)
    frames = []
    for v in x.unbind(-1):
        wide = v.to(moments.dtype)
        mean = DECAY * mean + (1 - DECAY) * wide
        square = DECAY * square + (1 - DECAY) * wide * wide
        normal = (v - mean.to(v.dtype)) * torch.rsqrt(
            (square - mean * mean).clamp(min=0) + 1e-5
        ).to(v.dtype)
        frames.append(normal * (1 + gamma) + beta)
    return (
        activate(torch.stack(frames, -1), activation, 0.2, alpha),
        torch.cat([mean, square], 1)[..., None],
    )


def draw(
    batch: int, channels: int, frames: int, activation: str, first: bool
) -> list[Tensor | None]:
    x = torch.randn(batch, frames, channels).mT if first else torch.randn(batch, channels, frames)
    style = torch.randn(batch, 2 * channels)
    mean = torch.randn(batch, channels, 1) * 0.3
    moments = torch.cat([mean, mean.square() + torch.rand_like(mean) + 0.5], 1)
    alpha = torch.rand(channels) + 0.5 if activation == "snake" else None
    return [x * 1.5 + 0.3, style[:, :channels], style[:, channels:], moments, alpha]


CASES = [  # batch, channels, frames, activation, frames first in memory
    (3, 131, 2, "leaky", True),
    (2, 150, 41, "snake", False),
    (2, 20, 33, "none", True),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_and_backward_are_as_good_as_plain_torch(
    case: tuple[int, int, int, str, bool], dtype: torch.dtype
) -> None:
    batch, channels, frames, activation, first = case
    tensors = [
        z if i == 3 or z is None else z.to(dtype)
        for i, z in enumerate(draw(batch, channels, frames, activation, first))
    ]
    x, gamma, beta, moments, alpha = tensors
    assert x is not None and gamma is not None and beta is not None and moments is not None
    y, after = forward(x, gamma, beta, moments, alpha, DECAY, activation, 0.2, 1e-5, width=256)
    low: list[Any] = [None if z is None else z.detach().requires_grad_() for z in tensors]
    high: list[Any] = leaves(*tensors, dtype=torch.float64)
    (rough, rough_after), (exact, exact_after) = plain(*low, activation), plain(*high, activation)  # type: ignore[call-arg]
    as_good_as_torch("y", y, rough.detach(), exact.detach())
    as_good_as_torch("moments", after, rough_after.detach(), exact_after.detach())
    dy, dafter = torch.randn(x.shape).to(dtype), torch.randn(moments.shape)
    found = backward(
        dy, dafter, x, gamma, beta, moments, alpha, DECAY, activation, 0.2, 1e-5, width=256
    )
    torch.autograd.backward([rough, rough_after], [dy, dafter])
    torch.autograd.backward([exact, exact_after], [dy.double(), dafter.double()])
    for name, one, a, b in zip(
        ("dx", "dgamma", "dbeta", "dmoments", "dalpha"), found, low, high, strict=True
    ):
        if a is not None:
            as_good_as_torch(name, one, a.grad, b.grad)


def test_it_is_the_norm_of_the_streaming_model_for_any_chunking() -> None:
    layer = StyleNorm(12, "running").double()
    x, style, state = (
        torch.randn(2, 12, 70, dtype=torch.float64),
        torch.randn(2, 24, dtype=torch.float64),
        layer.initial(2),
    )
    wanted, last = layer(x, style, state)
    parts = []
    for chunk in x.split([1, 40, 29], -1):
        y, state = running_norm(
            chunk, style[:, :12], style[:, 12:], state, decay=float(layer.decay)
        )
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, -1), wanted, rtol=0, atol=1e-9)
    torch.testing.assert_close(state, last, rtol=0, atol=1e-9)


@pytest.mark.parametrize("activation", ["none", "snake"])
def test_the_operator_is_registered_correctly(activation: str) -> None:
    inputs: list[Any] = [
        None if z is None else z.double().detach().requires_grad_()
        for z in draw(2, 3, 35, activation, True)
    ]
    torch.library.opcheck(running_norm_operator, (*inputs, DECAY, activation, 0.2, 1e-5))
    torch.use_deterministic_algorithms(False)
    assert torch.autograd.gradcheck(
        lambda *leaf: running_norm_operator(*leaf, DECAY, activation, 0.2, 1e-5), inputs
    )


def test_what_does_not_fit_is_refused() -> None:
    x, gamma, beta, moments, _ = draw(2, 5, 4, "none", False)
    assert x is not None and gamma is not None and beta is not None and moments is not None
    with pytest.raises(ValueError, match=r"\(B, 2 C, 1\)"):
        running_norm(x, gamma, beta, moments[:, :5], decay=DECAY)
    with pytest.raises(ValueError, match="between 0 and 1"):
        running_norm(x, gamma, beta, moments, decay=1.0)
