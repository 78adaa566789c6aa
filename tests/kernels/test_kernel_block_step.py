"""The block step kernel against plain torch and float64, its carried past, and the blocks of the
streaming model made of it."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from rtvc.kernels.block_step import block_operator, block_step, reference
from rtvc.kernels.forms import Step
from tests.support.kernel_checks import DTYPES, as_good_as_torch, interpreter, poisoned

interpreter()

from rtvc.kernels.block_step_triton import forward  # noqa: E402


@pytest.fixture(autouse=True)
def nan_memory() -> Iterator[None]:
    with poisoned():
        yield


def draw(
    batch: int,
    channels: int,
    outputs: int,
    frames: int,
    taps: int,
    dilation: int,
    norm: str,
    activation: str,
    skip: bool,
    shared: bool,
    plus_one: bool,
) -> list[Tensor | None]:
    """x, past, weight, bias, scale, shift, skip, alpha; x and past lie frames first."""
    style = (channels,) if shared else (batch, channels)
    return [
        torch.randn(batch, frames, channels).mT * 2 + 0.5,
        torch.randn(batch, (taps - 1) * dilation, channels).mT,
        torch.randn(outputs, taps, channels) / (taps * channels) ** 0.5,
        torch.randn(outputs) if skip else None,
        torch.randn(style) + 1 if norm != "none" else None,
        torch.randn(style) if norm != "none" else None,
        torch.randn(batch, outputs, frames) if skip else None,
        torch.rand(channels) + 0.5 if activation == "snake" else None,
    ]


# Batch, channels, outputs, frames, taps, dilation, norm, activation, skip and bias, style of all
# rows, 1 + scale
CASES = [
    (31, 70, 40, 2, 3, 4, "frame", "leaky", False, False, True),
    (3, 33, 150, 1, 1, 1, "frame", "snake", True, False, False),
    (2, 48, 37, 5, 3, 1, "frame", "none", True, True, False),
    (35, 20, 24, 2, 2, 3, "affine", "snake", False, False, True),
    (2, 40, 20, 3, 1, 1, "none", "gelu", True, False, False),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_output_and_past_are_as_good_as_plain_torch(
    case: tuple[Any, ...], dtype: torch.dtype
) -> None:
    tensors = [None if z is None else z.to(dtype) for z in draw(*case)]
    step = Step(case[6], case[7], case[5], 0.2, 1e-5, case[10])
    y, past = forward(*tensors, step)  # type: ignore[arg-type, call-arg]
    rough, rough_past = reference(*tensors, step)  # type: ignore[arg-type, call-arg]
    exact, exact_past = reference(*(None if z is None else z.double() for z in tensors), step)  # type: ignore[arg-type, call-arg]
    as_good_as_torch("y", y, rough, exact)
    if past.numel():
        as_good_as_torch("past", past, rough_past, exact_past)


def test_the_operator_is_registered_and_gradients_take_the_reference() -> None:
    tensors: list[Any] = draw(*CASES[0])
    torch.library.opcheck(block_operator, (*tensors, "frame", "leaky", 4, 0.2, 1e-5, True))
    x, past, weight, _, scale, shift, _, _ = tensors
    x.requires_grad_()
    y, _ = block_step(x, past, weight, scale=scale, shift=shift, dilation=4, implementation="fused")
    y.sum().backward()
    assert x.grad is not None


def test_what_does_not_fit_is_refused() -> None:
    x, past, weight, _, scale, shift, _, _ = draw(*CASES[0])
    assert (
        x is not None
        and past is not None
        and weight is not None
        and scale is not None
        and shift is not None
    )
    style: dict[str, Any] = {"scale": scale, "shift": shift}
    for wrong, match in (
        ({"norm": "batch"}, "norm"),
        ({"dilation": 2}, r"\(K - 1\) \* dilation"),
        ({"scale": None}, "with the norms affine and frame alone"),
        ({"scale": scale[:, :3]}, "scale of shape"),
        ({"skip": x}, "skip of shape"),
        ({"activation": "relu"}, "expected an activation of"),
        ({"activation": "snake"}, "expected alpha with 'snake' and with it alone"),
    ):
        with pytest.raises(ValueError, match=match):
            block_step(x, past, weight, **{"dilation": 4, **style, **wrong})  # type: ignore[arg-type, call-arg]
    with pytest.raises(ValueError, match=r"\(C', K, C\)"):
        block_step(x, past, weight[:, :, :4], dilation=4, **style)
