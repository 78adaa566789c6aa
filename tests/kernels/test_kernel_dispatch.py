"""What a registered operator launches on a GPU takes the operator's own arguments and gives its
results: the part of the dispatch that no CPU reaches."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.kernel_checks import interpreter

interpreter()

from rtvc.kernels import adain, block_step, frame_norm, istft, source  # noqa: E402


def styled() -> list[Tensor]:
    """x (B, C, T), gamma and beta (B, C), and alpha (C,)."""
    return [torch.randn(2, 6, 5), torch.randn(2, 6), torch.randn(2, 6), torch.rand(6) + 0.5]


def of_adain() -> tuple[Any, ...]:
    x, gamma, beta, alpha = styled()
    return x, gamma, beta, torch.tensor([5, 3]), alpha, "snake", 0.2, 1e-5


def of_frame_norm() -> tuple[Any, ...]:
    return *styled(), "snake", 0.2, 1e-5


def back(given: tuple[Any, ...], operator: Callable[..., Any]) -> tuple[Any, ...]:
    """Arguments of the backward operator, from those of the operator."""
    _, mean, rstd = operator(*given)
    *tensors, activation, slope, _ = given
    return torch.randn_like(given[0]), *tensors, mean, rstd, activation, slope


def of_block_step() -> tuple[Any, ...]:
    x, gamma, beta, _ = styled()
    past, weight = torch.randn(2, 6, 4), torch.randn(7, 3, 6)
    return x, past, weight, None, gamma, beta, None, None, "frame", "leaky", 2, 0.2, 1e-5, True


def of_istft() -> tuple[Any, ...]:
    """A window longer than those that the CUDA twin serves."""
    matrix = istft.synthesis_matrix(40, 10).float()
    return torch.randn(2, 42, 5), torch.randn(2, 1, 30), matrix, 10, "polar"


def of_source() -> tuple[Any, ...]:
    hertz, voicing = 100 + 50 * torch.rand(2, 6, dtype=torch.float64), torch.rand(2, 6)
    phase = torch.rand(2, 1, dtype=torch.float64)
    return hertz[:, 1:], voicing[:, 1:], hertz[:, :1], voicing[:, :1], phase, 24_000, 300


@pytest.mark.parametrize(
    ("operator", "launch", "draw"),
    [
        (adain.adain_operator, adain.kernels().forward, of_adain),
        (
            adain.backward_operator,
            adain.kernels().backward,
            lambda: back(of_adain(), adain.adain_operator),
        ),
        (frame_norm.frame_norm_operator, frame_norm.kernels().forward, of_frame_norm),
        (
            frame_norm.backward_operator,
            frame_norm.kernels().backward,
            lambda: back(of_frame_norm(), frame_norm.frame_norm_operator),
        ),
        (block_step.block_operator, block_step.launch, of_block_step),
        (istft.istft_operator, istft.launch, of_istft),
        (source.source_operator, source.launch, of_source),
    ],
    ids=["adain", "adain back", "frame_norm", "frame_norm back", "block_step", "istft", "source"],
)
def test_an_operator_and_its_kernel_take_and_give_the_same(
    operator: Any, launch: Callable[..., tuple[Tensor, ...]], draw: Callable[[], tuple[Any, ...]]
) -> None:
    torch.manual_seed(0)
    given = draw()
    for got, expected in zip(launch(*given), operator(*given), strict=True):
        assert got.dtype == expected.dtype
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
