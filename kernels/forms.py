"""What operators and their kernels both know: the numbers that names have inside a kernel."""

from typing import NamedTuple

from rtvc.kernels.activation import CODES

FORMS: dict[str, int] = {"complex": 0, "polar": 1, "sine": 2}
"""The forms as compile-time constants of the kernels."""
NORMS: dict[str, int] = {"none": 0, "affine": 1, "frame": 2}
ACTIVATIONS: dict[str, int] = CODES | {"gelu": 3}
"""Those of `block_step`: the exact GELU besides."""


class Step(NamedTuple):
    """What a step is, apart from its tensors."""

    norm: str
    activation: str
    dilation: int
    slope: float
    eps: float
    plus_one: bool = False
