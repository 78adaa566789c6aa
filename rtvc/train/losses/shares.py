"""Metrics that only some frames have: a total and a count, (2,), in place of their quotient.

Totals and counts add up over batches, steps and ranks, so a batch in which nothing is labelled
weighs nothing; of nothing at all there is no mean, and the metric is absent, not 0.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

METRIC = "metric/"
"""Beginning of the names of what is only logged."""


def share(values: Tensor, counted: Tensor) -> Tensor:
    """The mean of `values` where `counted`, of one shape, as a total and a count, (2,)."""
    counted = counted.float()
    return torch.stack([(values.float() * counted).sum(), counted.sum()])


def weighed(value: Tensor, weight: float = 1.0) -> Tensor:
    """A mean () over so many frames or rows as a total and a count, (2,); a share as it is."""
    value = value.detach().double().cpu()
    return value if value.ndim else torch.stack([value, torch.ones_like(value)]) * weight


def means(totals: Mapping[str, Tensor]) -> dict[str, float]:
    """Totals and counts (2,) by name -> the means of those that count anything."""
    pairs = {name: pair.tolist() for name, pair in totals.items()}
    return {name: total / count for name, (total, count) in pairs.items() if count}


def measured(values: Mapping[str, Tensor], leave_out: Iterable[str] = ()) -> dict[str, float]:
    """What a stage's `losses` gave, as numbers under the names without `metric/`."""
    left = set(leave_out)
    return means(
        {
            name.removeprefix(METRIC): weighed(value)
            for name, value in values.items()
            if name not in left
        }
    )
