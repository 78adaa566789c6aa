"""How the GPU suite times a call: latency with its percentiles, by itself and as a captured graph,
at growing batch sizes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rtvc.percentiles import percentiles

SLOW = 1.0
"""Seconds a call beyond which larger batches are not tried."""


class Unavailable(Exception):
    """This machine lacks what a part needs."""


@dataclass
class Bench:
    """Where and how thoroughly to measure.

    Attributes:
        device: a CUDA device, or in a dry run the CPU.
        dry: everything once, tiny.
        seconds: about as long is each figure timed.
        batches: rows a call.
        deadline: on the wall clock, when the suite's time is up.
    """

    device: torch.device
    dry: bool = False
    seconds: float = 0.2
    batches: Sequence[int] = (1, 16, 64, 256, 1024)
    deadline: float = float("inf")

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.time()

    def wait(self) -> None:
        """Until the device has done its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def latency(bench: Bench, call: Callable[[], Any], prefix: str = "") -> dict[str, float]:
    """Milliseconds of single calls, each waited for."""
    for _ in range(0 if bench.dry else 3):
        call()
    bench.wait()
    times: list[float] = []
    while not times or (sum(times) < bench.seconds and len(times) < 1000):
        began = time.perf_counter()
        call()
        bench.wait()
        times.append(time.perf_counter() - began)
    return percentiles(times, prefix, digits=4, shares=(50, 99))


def captured(call: Callable[[], Any]) -> Callable[[], Any]:
    """The call as a CUDA graph; its inputs must stay where they are."""
    from rtvc.engine.backends.double_buffer import capture

    return capture(call)


def ladder(
    bench: Bench, make: Callable[[int], Callable[[], Any]], *, graph: bool = True
) -> list[dict[str, Any]]:
    """Latency at every batch size, smallest first; slow calls, or the first that fails (mostly for
    memory), end it.

    Args:
        bench: how to measure.
        make: gives the call for so many rows.
        graph: time it as a captured graph too.
    """
    rows: list[dict[str, Any]] = []
    for batch in bench.batches:
        row: dict[str, Any] = {"batch": batch}
        rows.append(row)
        expected = rows[-2]["p50_ms"] / 1000 * batch / rows[-2]["batch"] if len(rows) > 1 else 0.0
        if bench.left < 0 or expected > 2 * SLOW:
            row["skipped"] = "no time left" if bench.left < 0 else f"about {expected:.1f} s a call"
            break
        try:
            with torch.inference_mode():
                if bench.device.type == "cuda":
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats()
                call = make(batch)
                row |= latency(bench, call)
                if graph and bench.device.type == "cuda" and row["p50_ms"] < 1000 * SLOW:
                    row |= graphed(bench, call)
                if bench.device.type == "cuda":
                    row["peak_mib"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
            if row["p50_ms"] > 1000 * SLOW:
                break
        except Exception as problem:
            if batch == bench.batches[0]:
                raise
            row["error"] = f"{type(problem).__name__}: {problem}"[:500]
            bench.wait()  # raises if the device is lost, and the part with it
            break
    return rows


def graphed(bench: Bench, call: Callable[[], Any]) -> dict[str, Any]:
    """Latency of the captured call, or why it cannot be captured."""
    try:
        return latency(bench, captured(call), "graph_")
    except torch.OutOfMemoryError:
        raise
    except Exception as problem:
        bench.wait()
        return {"graph_error": f"{type(problem).__name__}: {problem}"[:300]}
