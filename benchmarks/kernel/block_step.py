"""Cases of `kernels/block_step.py`: both halves of the streaming model's residual block, 384
channels, two frames a chunk."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rtvc.benchmarks.kernel.run import Case, Size
from rtvc.kernels.block_step import block_step, reference
from rtvc.kernels.forms import Step


class Shape(NamedTuple):
    """One step's sizes."""

    batch: int
    channels: int
    frames: int
    taps: int
    dilation: int
    norm: str
    activation: str
    skip: bool


SHAPES = {
    "odd": [
        Shape(31, 70, 2, 3, 4, "frame", "leaky", False),
        Shape(3, 33, 1, 1, 1, "none", "gelu", True),
    ],
    "streaming": [
        shape
        for batch in (1, 64, 1024)
        for shape in (
            Shape(batch, 384, 2, 3, 4, "frame", "leaky", False),
            Shape(batch, 384, 2, 1, 1, "frame", "leaky", True),
        )
    ],
    "large": [Shape(256, 384, 64, 3, 4, "frame", "leaky", False)],
}


def draw(shape: Shape, device: torch.device) -> tuple[Tensor | None, ...]:
    """x, past, weight, bias, scale, shift, skip and no alpha."""
    b, c, t, k = shape.batch, shape.channels, shape.frames, shape.taps

    def normal(*sizes: int) -> Tensor:
        return torch.randn(*sizes, device=device)

    past, weight, bias = (
        normal(b, (k - 1) * shape.dilation, c).mT,
        normal(c, k, c) / (c * k) ** 0.5,
        normal(c),
    )
    scale, shift = (normal(b, c), normal(b, c)) if shape.norm != "none" else (None, None)
    return (
        normal(b, t, c).mT,
        past,
        weight,
        bias,
        scale,
        shift,
        normal(b, t, c).mT if shape.skip else None,
        None,
    )


def plain(step: Step, *tensors: Any) -> tuple[Tensor, ...]:
    """The layers' own chain: norm, style, activation, concatenated taps, matrix product, skip."""
    return reference(*tensors, step)  # type: ignore[call-arg]


def operator(step: Step, *tensors: Any) -> tuple[Tensor, ...]:
    """The call that the model makes."""
    x, past, weight, bias, scale, shift, skip, _ = tensors
    options: dict[str, Any] = {
        "norm": step.norm,
        "activation": step.activation,
        "dilation": step.dilation,
        "plus_one": step.plus_one,
    }
    return block_step(
        x,
        past,
        weight,
        bias,
        scale=scale,
        shift=shift,
        skip=skip,
        implementation="fused",
        **options,
    )


def triton(step: Step, *tensors: Any) -> tuple[Tensor, ...]:
    """The launcher alone."""
    from rtvc.kernels.block_step_triton import forward

    return forward(*tensors, step)  # type: ignore[call-arg, arg-type]


def cases(size: Size) -> Iterator[Case]:
    """One launch a case."""
    for shape in SHAPES[size]:
        step = Step(shape.norm, shape.activation, shape.dilation, 0.2, 1e-5, True)
        name = (
            f"{shape.norm} {shape.activation} {shape.taps} taps"
            f" {shape.batch}x{shape.channels}x{shape.frames}"
        )
        ways = {"operator": partial(operator, step), "triton": partial(triton, step)}
        yield Case("block_step", name, partial(draw, shape), partial(plain, step), ways)
