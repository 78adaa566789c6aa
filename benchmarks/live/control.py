"""`rtvc bench control`: from asking a conversion for a change to its answer, as a hot key has
it."""

import time
from typing import Any

from rtvc.clients.control.call import Line
from rtvc.clients.control.runtime import Address
from rtvc.percentiles import percentiles

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
        times.append(time.perf_counter() - began)
    line.close()
    counted = times[FIRST:]
    return {
        "name": "control",
        "asks": asks,
        **percentiles(counted, digits=2),
        "worst_ms": round(1000 * max(counted), 2),
    }
