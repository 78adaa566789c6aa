"""`rtvc bench control`: from asking a conversion for a change to its answer, as a hot key has
it."""

import time
from typing import Any

import numpy as np

from rtvc.clients.control.call import Line
from rtvc.clients.control.runtime import Address

FIRST = 20
"""Asks that are not counted: the connection, and what is imported at the first."""


def round_trips(address: Address, asks: int) -> dict[str, Any]:
    """Milliseconds of so many changes one after the other, which change nothing that is heard:
    the pitch is set to what it is.

    Raises:
        ServiceError: the conversion does not answer.
    """
    line, times = Line(address), list[float]()
    pitch = line.status()["pitch"]
    for _ in range(FIRST + asks):
        began = time.perf_counter()
        line.change({"pitch": pitch})
        times.append(1000 * (time.perf_counter() - began))
    line.close()
    counted = times[FIRST:]
    p50, p95, p99 = np.percentile(counted, [50, 95, 99]).tolist()
    return {
        "name": "control",
        "asks": asks,
        "p50_ms": round(p50, 2),
        "p95_ms": round(p95, 2),
        "p99_ms": round(p99, 2),
        "worst_ms": round(max(counted), 2),
    }
