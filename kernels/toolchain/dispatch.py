"""Which implementation of an operation runs: decided by the tensor's device, or by the caller,
never by a global.

`auto` runs the plain torch reference on a CPU, where it exports and differentiates like any other
torch code, and the registered operator (Triton or CUDA) on a GPU. `reference` forces the plain
torch code anywhere, for instance to export a graph that must hold standard operators only. `fused`
forces the registered operator anywhere; on a CPU the operator runs the reference inside, which is
how export and autograd of the operators are tested without a GPU.
"""

from functools import lru_cache
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

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
