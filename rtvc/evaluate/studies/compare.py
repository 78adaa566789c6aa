"""Whether one result is better than another: a paired bootstrap over the pairs that both converted.

Efron and Tibshirani 1993, chapter 13 (percentile intervals), and for word errors Bisani and Ney
2004: the same draws of pairs are taken from both results, totals of errors are divided by totals of
      words, and the two quotients subtracted.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from rtvc.errors import ConfigError
from rtvc.evaluate.summary import interval, parts, quotient, resampled
from rtvc.files import read_json

DIRECTIONS = {
    "wer": -1,
    "wer2": -1,
    "secs_target": 1,
    "secs_source": -1,
    "secs2_target": 1,
    "secs2_source": -1,
    "dnsmos_ovrl": 1,
    "dnsmos_sig": 1,
    "dnsmos_bak": 1,
    "distillmos": 1,
    "f0_pcc": 1,
    "rtf": -1,
}
"""What is compared, and whether more of it is better (1) or worse (-1)."""
DRAWS = 10_000
Verdict = Literal["better", "worse", "undecided"]


class Difference(NamedTuple):
    """One metric of two results, over the pairs for which both have it.

    Attributes:
        before: of the first result.
        after: of the second.
        change: the second minus the first.
        low: the lower end of the change's 95 % interval.
        high: its upper end.
        verdict: on the second; undecided while the interval holds 0.
        pairs: how many pairs have a value in both.
    """

    before: float
    after: float
    change: float
    low: float
    high: float
    verdict: Verdict
    pairs: int


def read_result(path: Path) -> dict[str, Any]:
    """A result that `rtvc evaluate --json` wrote.

    Raises:
        ConfigError: the file is missing, or is no such result.
    """
    try:
        content: dict[str, Any] = read_json(path)
        if all(pair["pair"] for pair in content["pairs"]) and content["pairs"]:
            return content
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
    else:
        reason = "it lists no pairs"
    raise ConfigError(
        f"{path} is no result of `rtvc evaluate --json` ({reason}): give two such files to"
        " --compare"
    )


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Difference | None]:
    """Every metric of the second result against the first; None for one that they have on no common
    pair.

    Raises:
        ConfigError: the results have no pair in common.
    """
    one, other = (
        {(pair["pair"], tuple(pair["references"])): pair for pair in result["pairs"]}
        for result in (first, second)
    )
    common = [key for key in one if key in other]
    if not common:
        raise ConfigError(
            "the two results have no pair in common: evaluate both on the same list of pairs"
        )
    draws = resampled(len(common), DRAWS)
    sides = [[result[key] for key in common] for result in (one, other)]
    differences: dict[str, Difference | None] = {}
    for metric, direction in DIRECTIONS.items():
        columns = [np.stack(parts(side, metric)) for side in sides]
        known = np.isfinite(columns).all((0, 1))
        columns = [np.where(known, column, np.nan) for column in columns]
        before, after = (float(quotient(*column)) for column in columns)
        spread = [quotient(upper[draws], lower[draws]) for upper, lower in columns]
        low, high = interval(spread[1] - spread[0])
        if np.isnan(low):
            differences[metric] = None
            continue
        differences[metric] = Difference(
            before,
            after,
            after - before,
            low,
            high,
            verdict(low, high, direction),
            int(known.sum()),
        )
    return differences


def verdict(low: float, high: float, direction: int) -> Verdict:
    """What an interval of a change says, where more is better (direction 1) or worse (-1)."""
    if low <= 0 <= high:
        return "undecided"
    return "better" if (low > 0) == (direction > 0) else "worse"
