"""The AdaIN kernel against plain torch and float64, forward and backward, and as a registered
operator."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rtvc.kernels.adain import adain, adain_operator, reference
from tests.support.kernel_checks import DTYPES, as_good_as_torch, interpreter, leaves, poisoned

interpreter()

from rtvc.kernels.adain_triton import backward, forward, tile  # noqa: E402


@pytest.fixture(autouse=True)
def nan_memory() -> Iterator[None]:
    with poisoned():
        yield


def plain(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    lengths: Tensor | None,
    alpha: Tensor | None,
    activation: str,
) -> Tensor:
    """A chain of stock operations in x's own precision, row by row when lengths differ."""
    if lengths is not None:
        rows = [
            plain(x[i : i + 1, :, :n], gamma[i : i + 1], beta[i : i + 1], None, alpha, activation)
            for i, n in enumerate(lengths.tolist())
        ]
        return torch.cat([F.pad(row, (0, x.shape[-1] - row.shape[-1])) for row in rows])
    z = (1 + gamma)[..., None] * F.instance_norm(x) + beta[..., None]
    if activation == "leaky":
        return F.leaky_relu(z, 0.2)
    if activation == "snake":
        assert alpha is not None
        return z + (1 / alpha[:, None]) * torch.sin(alpha[:, None] * z) ** 2
    return z


CASES = [  # batch, channels, frames, ragged, activation, elements of a tile, longest whole row
    (2, 137, 5, False, "none", 4096, 16384),
    (1, 153, 61, False, "leaky", 16384, 16384),
    (3, 135, 130, True, "snake", 65536, 16384),
    (2, 131, 333, True, "leaky", 16384, 64),
    (2, 133, 257, False, "snake", 16384, 64),
    (2, 134, 200, True, "none", 16384, 64),
]


def draw(
    batch: int, channels: int, frames: int, ragged: bool, activation: str
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    x = torch.randn(batch, channels, frames) * 2 + torch.randn(batch, channels, 1)
    lengths = torch.randint(frames // 2, frames + 1, (batch,)) if ragged else None
    if lengths is not None:
        lengths[0] = frames
    alpha = torch.rand(channels) + 0.5 if activation == "snake" else None
    return x, torch.randn(batch, channels), torch.randn(batch, channels), lengths, alpha


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_and_backward_are_as_good_as_plain_torch(
    case: tuple[int, int, int, bool, str, int, int], dtype: torch.dtype
) -> None:
    batch, channels, frames, ragged, activation, elements, longest = case
    x, gamma, beta, lengths, alpha = draw(batch, channels, frames, ragged, activation)
    x, gamma, beta = x.to(dtype), gamma.to(dtype), beta.to(dtype)
    alpha = None if alpha is None else alpha.to(dtype)
    y, mean, rstd = forward(
        x, gamma, beta, lengths, alpha, activation, 0.2, 1e-5, elements=elements, longest=longest
    )

    low, high = (
        leaves(x, gamma, beta, alpha, dtype=dtype),
        leaves(x, gamma, beta, alpha, dtype=torch.float64),
    )
    rough, exact = (plain(a, g, b, lengths, c, activation) for a, g, b, c in (low, high))  # type: ignore[arg-type]
    as_good_as_torch("y", y, rough.detach(), exact.detach())

    dy = torch.randn(x.shape).to(dtype)
    found = backward(
        dy,
        x,
        gamma,
        beta,
        lengths,
        alpha,
        mean,
        rstd,
        activation,
        0.2,
        elements=elements,
        longest=longest,
    )
    rough.backward(dy)
    exact.backward(dy.double())
    for name, one, a, b in zip(("dx", "dgamma", "dbeta", "dalpha"), found, low, high, strict=True):
        if a is not None and b is not None:
            assert a.grad is not None and b.grad is not None
            as_good_as_torch(name, one, a.grad, b.grad)


def test_the_reference_is_the_stock_chain() -> None:
    x, gamma, beta, lengths, alpha = (
        z.double() if z is not None and z.is_floating_point() else z
        for z in draw(3, 4, 50, True, "snake")
    )
    assert x is not None and gamma is not None and beta is not None
    torch.testing.assert_close(
        adain(x, gamma, beta, lengths=lengths, activation="snake", alpha=alpha),
        plain(x, gamma, beta, lengths, alpha, "snake"),
        rtol=0,
        atol=1e-12,
    )


def test_one_program_holds_many_short_rows_and_a_long_row_is_tiled() -> None:
    assert tile(2048, 61) == (64, 64, True)
    assert tile(3, 61) == (4, 64, True)
    assert tile(2048, 10_000) == (1, 16384, True)
    assert tile(2048, 20_000) == (1, 4096, False)


@pytest.mark.parametrize("activation", ["none", "leaky", "snake"])
def test_the_operator_is_registered_correctly(activation: str) -> None:
    """Schema, fake kernel, autograd registration and dynamic shapes, by torch's own checker;
    gradients by differences."""
    x, gamma, beta, lengths, alpha = draw(2, 3, 9, True, activation)
    inputs: list[Any] = [
        None if z is None else z.double().requires_grad_() if z.is_floating_point() else z
        for z in (x, gamma, beta, lengths, alpha)
    ]
    torch.library.opcheck(adain_operator, (*inputs, activation, 0.2, 1e-5))
    torch.use_deterministic_algorithms(False)
    assert torch.autograd.gradcheck(
        lambda *leaf: adain_operator(*leaf, activation, 0.2, 1e-5)[0], inputs
    )


def test_the_operator_compiles_and_exports_as_one_node() -> None:
    class Block(torch.nn.Module):
        def forward(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
            return 2 * adain(x, gamma, beta, activation="leaky", implementation="fused")

    x, gamma, beta, _, _ = draw(2, 3, 9, False, "leaky")
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    program = torch.export.export(Block(), (x, gamma, beta), dynamic_shapes=(batch, batch, batch))
    assert [
        node.name
        for node in program.graph.nodes
        if node.op == "call_function" and "adain" in str(node.target)
    ] == ["adain"]
    x, gamma, beta, _, _ = draw(5, 3, 9, False, "leaky")
    wanted = 2 * reference(x, gamma, beta, None, None, "leaky", 0.2, 1e-5)[0]
    assert torch.equal(program.module()(x, gamma, beta), wanted)
    compiled = torch.compile(Block(), backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x, gamma, beta), wanted)


def test_what_does_not_fit_is_refused() -> None:
    x, gamma, beta, _, alpha = draw(2, 3, 9, False, "snake")
    with pytest.raises(ValueError, match=r"x of shape \(B, C, T\)"):
        adain(x[0], gamma, beta)
    with pytest.raises(ValueError, match="gamma and beta of shape"):
        adain(x, gamma[:, :2], beta)
    with pytest.raises(ValueError, match="lengths of shape"):
        adain(x, gamma, beta, lengths=torch.ones(3))
    with pytest.raises(ValueError, match="expected an activation of"):
        adain(x, gamma, beta, activation="relu")
    with pytest.raises(ValueError, match="alpha with 'snake'"):
        adain(x, gamma, beta, activation="leaky", alpha=alpha)
    with pytest.raises(ValueError, match="one value a channel"):
        adain(x, gamma, beta, activation="snake", alpha=torch.ones(4))
    with pytest.raises(ValueError, match="implementation"):
        adain(x, gamma, beta, implementation="cuda")  # type: ignore[arg-type]
