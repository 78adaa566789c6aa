"""Which conversions are worst: listening starts there."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rtvc.evaluate.summary import column

RULES = {"errors": -1, "secs_target": 1, "secs2_target": 1, "dnsmos_ovrl": 1, "f0_pcc": 1}
"""What counts, and whether more of it is better (1) or worse (-1)."""


def worst_first(pairs: Sequence[Mapping[str, Any]]) -> list[int]:
    """Indices of the pairs by their mean rank over words wrong beyond the source's own, both
    similarities, DNSMOS and melody.

    A missing value ranks as the worst. Ties keep the order of the list.
    """
    total = np.zeros(len(pairs))
    for metric, sign in RULES.items():
        values = column(pairs, metric)
        if metric == "errors":
            values = (values - column(pairs, "errors_source")) / np.maximum(
                column(pairs, "words"), 1
            )
        values = np.where(np.isnan(values), -np.inf, sign * values)
        total += np.searchsorted(np.sort(values), values, side="left") + np.searchsorted(
            np.sort(values), values, side="right"
        )
    return [int(index) for index in np.argsort(total, kind="stable")]
