"""Weights in a file at eight bits each: a whole number a weight and a scale a row.

Twenty million weights must fit into a repository; float16 would take 40 MB. A row is what makes one
output channel, so its scale is that of the runtimes that step in eight bits
(`rtvc.engine.graph.precision`). Rounding to 255 levels a row leaves 40 dB and more between the
weights and what is lost of them. Vectors, and whatever is small, stay float16.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from rtvc.errors import CheckpointError
from rtvc.printable import printable
from rtvc.tensorfile import Described

LEVELS = 127
"""Largest whole number; -128 is not used, so that a row and its negative are kept alike."""
SMALLEST = 4096
"""Weights of a matrix from which eight bits are worth their scale."""
SUFFIX = "::scale"
"""Of the tensor (R, 1, …) float16 beside whole numbers (R, …)."""


def packed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict as a file holds it: float32 matrices as int8 and scales, the rest as float16."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            tensors[name] = tensor.contiguous()
        elif tensor.ndim < 2 or tensor.numel() < SMALLEST:
            tensors[name] = tensor.half().contiguous()
        else:
            largest = tensor.float().abs().amax(tuple(range(1, tensor.ndim)), keepdim=True)
            # Rounded up to float16 first: the whole numbers are those of the scale that is kept.
            scale = (largest / LEVELS).clamp(min=2.0**-24).half()
            whole = (tensor.float() / scale.float()).round().clamp(-LEVELS, LEVELS)
            tensors[name], tensors[name + SUFFIX] = whole.to(torch.int8).contiguous(), scale
    return tensors


def logical(described: Mapping[str, Described]) -> dict[str, Described]:
    """What the tensors of such a file are once they are unpacked, before any is read.

    Raises:
        CheckpointError: a scale without whole numbers, or of another shape than theirs asks for.
    """
    tensors = dict(described)
    for name in [name for name in described if name.endswith(SUFFIX)]:
        scale, of = tensors.pop(name), name.removesuffix(SUFFIX)
        whole = described.get(of, scale)
        rows = torch.Size((*whole.shape[:1], *(1 for _ in whole.shape[1:])))
        if whole.dtype != torch.int8 or scale.dtype != torch.float16 or scale.shape != rows:
            raise CheckpointError(
                f"expected {printable(name)} to be a float16 scale for each row of int8 weights,"
                f" got {scale.dtype} {tuple(scale.shape)} for {whole.dtype} {tuple(whole.shape)}:"
                " get the file again"
            )
        tensors[of] = Described(torch.float16, whole.shape)
    return tensors


def unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a file whose shapes `logical` has checked; matrices become float32."""
    return {
        name: (
            tensor.float() * tensors[name + SUFFIX].float() if name + SUFFIX in tensors else tensor
        )
        for name, tensor in tensors.items()
        if not name.endswith(SUFFIX)
    }
