"""How long something took, as it is told everywhere: the median and the slow end."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def percentiles(
    seconds: Sequence[float] | NDArray[np.floating],
    name: str = "",
    *,
    digits: int = 1,
    shares: Sequence[int] = (50, 95, 99),
) -> dict[str, float]:
    """`p50_ms`, `p95_ms` and `p99_ms`, or other `shares` in percent, of times in seconds (N,), with
    `name` before; zeros where there are no times."""
    times = np.percentile(seconds, shares) if len(seconds) else np.zeros(len(shares))
    return {
        f"{name}p{share}_ms": round(1000 * float(time), digits)
        for share, time in zip(shares, times, strict=True)
    }
