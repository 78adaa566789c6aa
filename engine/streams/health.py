"""Whether a state is still finite: what is not would never be again, since every later step
computes with it.

A sum tells it at the price of one pass over the state, some microseconds: it is finite only if
every number in it is. (A finite sum of so large numbers that it overflows counts as not finite,
rightly.)
"""

import math

from torch import Tensor


def is_finite(state: Tensor) -> bool:
    """Whether a whole tensor is."""
    return math.isfinite(float(state.sum()))


def broken_rows(states: Tensor) -> list[int]:
    """The rows of states (B, S) that are not."""
    return [row for row, total in enumerate(states.sum(1).tolist()) if not math.isfinite(total)]
