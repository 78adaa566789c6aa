"""What the tests of the kernels share: Triton's interpreter, poisoned memory, and the measure of
error.

A kernel may be at most twice as far from float64 as plain torch operations in the same precision
are. Outputs are allocated full of NaN, so an element that nothing wrote fails the comparison.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from rtvc.benchmarks.kernel.run import allowed, error

__all__ = ["DTYPES", "as_good_as_torch", "error", "interpreter", "leaves", "poisoned"]
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def interpreter() -> None:
    """Skips the calling test file where Triton is missing or was imported before its interpreter
    was asked for."""
    triton: Any = pytest.importorskip(
        "triton", reason="Triton is not installed: pip install 'rtvc-engine[gpu]'"
    )
    if not triton.knobs.runtime.interpret:
        pytest.skip(
            "TRITON_INTERPRET=1 was not set before Triton was imported", allow_module_level=True
        )
    from triton.runtime import interpreter as module

    if module._convert_float.__name__ != "nearest":
        module._convert_float = rounding(module._convert_float)
        module.InterpreterBuilder.create_dot = multiplying(module.InterpreterBuilder.create_dot)


def rounding(convert: Any) -> Any:
    """The interpreter cuts float32 off to bfloat16; GPUs round to nearest even, and so must it to
    be compared."""

    def nearest(data: Any, source: Any, target: Any, mode: Any) -> Any:
        if source.name == "fp32" and target.name == "bf16":
            return (
                torch.from_numpy(data.astype("float32"))
                .bfloat16()
                .view(torch.int16)
                .numpy()
                .view("uint16")
                .reshape(data.shape)
            )
        return convert(data, source, target, mode)

    return nearest


def multiplying(dot: Any) -> Any:
    """Products as tensor cores compute them.

    The interpreter multiplies the bits of bfloat16 as if they were integers; GPUs multiply the
    numbers, in float32. It multiplies float32 exactly; in three TF32 products GPUs split each
    operand into two of 11 bits and drop the least product.
    """

    def create_dot(self: Any, a: Any, b: Any, total: Any, precision: Any, *rest: Any) -> Any:
        if a.dtype.name == "bf16":
            a, b = (self.create_fp_ext(x, total.dtype) for x in (a, b))
        elif a.dtype.name == "fp32" and "tf32x3" in str(precision).lower():
            (a, small_a), (b, small_b) = split(a), split(b)
            for left, right in ((small_a, b), (a, small_b)):
                total = dot(self, left, right, total, precision, *rest)
        return dot(self, a, b, total, precision, *rest)

    return create_dot


def split(x: Any) -> tuple[Any, Any]:
    """A float32 operand as the nearest TF32 number, and its remainder as another."""
    large = type(x)(tf32(x.data), x.dtype)
    return large, type(x)(tf32(x.data - large.data), x.dtype)


def tf32(data: Any) -> Any:
    """float32 rounded to 10 stored bits of mantissa, halves away from zero."""
    bits = torch.from_numpy(data.astype("float32")).view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32).numpy().reshape(data.shape)


@contextmanager
def poisoned() -> Iterator[None]:
    """Inside, uninitialised memory is filled with NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def as_good_as_torch(name: str, found: Tensor, plain: Tensor, exact: Tensor) -> None:
    """Raises unless the kernel's error is at most twice that of plain torch in the same precision.

    Where plain torch happens to be exact, half a unit in the last place of the typical value is
    allowed.
    """
    assert exact.dtype == torch.float64 and found.dtype == plain.dtype, (found.dtype, plain.dtype)
    assert found.shape == exact.shape, (
        f"{name}: expected shape {tuple(exact.shape)}, got {tuple(found.shape)}"
    )
    got, limit = error(found, exact), allowed(plain, exact, found.dtype)
    assert got <= limit, f"{name}: off by {got:.3g}, twice plain torch is {limit:.3g}"


def leaves(*tensors: Tensor | None, dtype: torch.dtype) -> list[Tensor | None]:
    """Fresh leaves of the dtype that gather gradients."""
    return [None if x is None else x.detach().to(dtype).requires_grad_() for x in tensors]
