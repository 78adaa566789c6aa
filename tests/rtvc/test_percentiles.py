"""Percentiles of durations, as they are told everywhere."""

import numpy as np

from rtvc.percentiles import percentiles


def test_seconds_are_told_in_milliseconds() -> None:
    seconds = np.arange(1001) / 1000
    assert percentiles(seconds) == {"p50_ms": 500.0, "p95_ms": 950.0, "p99_ms": 990.0}
    assert percentiles([0.00123456], "lag_", digits=2, shares=(50,)) == {"lag_p50_ms": 1.23}


def test_of_no_times_there_are_zeros() -> None:
    assert percentiles([], "lag_") == {"lag_p50_ms": 0.0, "lag_p95_ms": 0.0, "lag_p99_ms": 0.0}
