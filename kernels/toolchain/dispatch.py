"""Which implementation of an operation runs, decided by the tensor's device, or by the caller,
never by a global; and how an operator is registered.

`auto` runs the plain torch reference on a CPU, where it exports and differentiates like any other
torch code, and the registered operator (Triton or CUDA) on a GPU. `reference` forces the plain
torch code anywhere, for instance to export a graph that must hold standard operators only. `fused`
forces the registered operator anywhere; on a CPU the operator runs the reference inside, which is
how export and autograd of the operators are tested without a GPU.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor
from torch.library import custom_op, infer_schema

Implementation = Literal["auto", "reference", "fused"]
"""See the module's text."""

KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
"""What the kernels read and write; statistics, phases and sums are wider inside. float64 runs the
reference."""


@lru_cache(maxsize=1)
def triton_installed() -> bool:
    """Whether kernels can be compiled here at all; without Triton a GPU runs the reference."""
    return find_spec("triton") is not None


def use_operator(x: Tensor, implementation: Implementation) -> bool:
    """Whether the registered operator serves x; otherwise the reference does.

    Raises:
        ValueError: an implementation of another name.
    """
    if implementation == "fused":
        return True
    if implementation == "reference":
        return False
    if implementation != "auto":
        raise ValueError(
            f"expected an implementation of 'auto', 'reference', 'fused', got {implementation!r}"
        )
    return x.is_cuda and x.dtype in KERNEL_DTYPES and triton_installed()


def serves(*tensors: Tensor) -> bool:
    """Whether a Triton kernel reads all of these dtypes; a registered operator asked for another
    runs its reference."""
    return all(x.dtype in KERNEL_DTYPES for x in tensors) and triton_installed()


def register_operator(
    name: str,
    reference: Callable[..., Any],
    *,
    kernel: Callable[..., Any],
    fake: Callable[..., Any],
    reads: Sequence[int] = (0, 1, 2),
) -> Any:
    """The operator `rtvc::name`, a `CustomOpDef`: on a GPU one kernel, elsewhere its reference.

    Args:
        name: in torch's registry and in exported graphs.
        reference: plain torch, whose signature is the operator's; its results share no memory with
            its arguments or with each other.
        kernel: launches the kernel with the same arguments; it imports Triton inside, which is no
            requirement.
        fake: empty tensors like the results, from the same arguments.
        reads: places of the tensors whose dtypes the kernel must be able to read.
    """

    def compute(*arguments: Any) -> Any:
        if arguments[0].is_cuda and serves(*(arguments[place] for place in reads)):
            return kernel(*arguments)
        return reference(*arguments)

    schema = infer_schema(reference, mutates_args=())
    operator = custom_op(f"rtvc::{name}", compute, mutates_args=(), schema=schema)
    operator.register_fake(fake)
    return operator
