"""Means over pairs with 95 % intervals: percentile bootstrap over the pairs, 2,000 draws, fixed
seed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

RATIOS = {
    "wer": ("errors", "words"),
    "wer_source": ("errors_source", "words"),
    "wer2": ("errors2", "words"),
    "wer2_source": ("errors2_source", "words"),
    "rtf": ("compute_seconds", "seconds"),
}
"""Quotients of totals: a long utterance counts as much as its words or seconds."""
MEANS = (
    *("secs_target", "secs_source", "secs2_target", "secs2_source"),
    *("dnsmos_ovrl", "dnsmos_sig", "dnsmos_bak", "distillmos", "distillmos_source", "f0_pcc"),
)
METRICS = ("wer", "wer_source", "wer2", "wer2_source", *MEANS, "rtf")
DRAWS, SEED = 2000, 20240


def summarise(pairs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Every metric, its interval under `ci95`, and how many pairs were evaluated; None where no
    pair has a value."""
    draws = resampled(len(pairs))
    summary: dict[str, Any] = {}
    intervals: dict[str, list[float] | None] = {}
    for metric in METRICS:
        upper, lower = parts(pairs, metric)
        value, spread = quotient(upper, lower), quotient(upper[draws], lower[draws])
        low, high = interval(spread)
        known = bool(np.isfinite(value + low))
        summary[metric] = round(float(value), 5) if known else None
        intervals[metric] = [round(low, 5), round(high, 5)] if known else None
    return {**summary, "ci95": intervals, "pairs_evaluated": len(pairs)}


def resampled(count: int, draws: int = DRAWS) -> npt.NDArray[np.int64]:
    """Which of so many values each draw of the bootstrap takes, (draws, count); always the same."""
    return np.random.default_rng(SEED).integers(0, count, (draws, count))


def interval(spread: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 % of what the draws gave (D,); NaN where none of them gave a number."""
    known = spread[np.isfinite(spread)]
    low, high = np.percentile(known, [2.5, 97.5]).tolist() if len(known) else (np.nan, np.nan)
    return low, high


def parts(
    pairs: Sequence[Mapping[str, Any]], metric: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(P,) twice: what is summed over pairs and divided by what for the metric; NaN in both where a
    pair has no value."""
    if metric in RATIOS:
        upper, lower = (column(pairs, key) for key in RATIOS[metric])
    else:
        upper = column(pairs, metric)
        lower = np.ones(len(upper))
    unknown = np.isnan(upper) | np.isnan(lower)
    return np.where(unknown, np.nan, upper), np.where(unknown, np.nan, lower)


def column(pairs: Sequence[Mapping[str, Any]], key: str) -> npt.NDArray[np.float64]:
    """(P,) one number a pair, NaN where there is none."""
    values = [pair.get(key) for pair in pairs]
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def quotient(
    upper: npt.NDArray[np.float64], lower: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """(..., P) totals of the last axis, divided; NaN where the divisor's is 0."""
    divisor = np.nansum(lower, -1)
    out = np.full(divisor.shape, np.nan)
    np.divide(np.nansum(upper, -1), divisor, out=out, where=divisor > 0)
    return out
