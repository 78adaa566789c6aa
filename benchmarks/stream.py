"""`rtvc bench stream`: how many concurrent sessions this machine converts in real time, and where
it breaks."""

import time
from typing import Any

import numpy as np

from rtvc.engine.backends.base import Backend
from rtvc.engine.streams.capacity import Capacity
from rtvc.engine.streams.pool import Pool
from rtvc.engine.trial import probe
from rtvc.percentiles import percentiles
from rtvc.voices.voice import Voice


def ticks(backend: Backend, voice: Voice, streams: int, count: int) -> list[float]:
    """Seconds that each of `count` ticks takes with so many sessions, each with one chunk a tick;
    edges at 48 kHz included."""
    pool = Pool(
        backend, slots=streams, capacity=Capacity(backend.chunk / backend.sample_rate, {}, streams)
    )
    sessions = [pool.join(voice, sample_rate=48_000) for _ in range(streams)]
    block = np.repeat(probe(backend.chunk, 1).flatten().numpy(), 2)
    times = []
    for index in range(count + 5):
        for session in sessions:
            session.push(block)
        began = time.perf_counter()
        pool.tick()
        if index >= 5:
            times.append(time.perf_counter() - began)
    return times


def stream(
    backend: Backend, voice: Voice, *, streams: int | None = None, most: int = 64, count: int = 100
) -> dict[str, Any]:
    """Tick times by number of sessions; without `streams`, more and more until the 99th percentile
    no longer fits the tick.

    Returns:
        `tick_ms`, `sustained` (the most sessions whose p99 fits the tick) and `rows`: streams,
        p50_ms, p95_ms, p99_ms, fits.
    """
    tick = 1000 * backend.chunk / backend.sample_rate
    rows: list[dict[str, Any]] = []
    counts = (
        [streams]
        if streams
        else [n for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64) if n <= most]
    )
    for number in counts:
        told = percentiles(ticks(backend, voice, number, count), digits=4)
        rows.append({"streams": number, **told, "fits": told["p99_ms"] <= tick})
        if not rows[-1]["fits"]:
            break
    sustained = max((row["streams"] for row in rows if row["fits"]), default=0)
    breaks = next((row["streams"] for row in rows if not row["fits"]), None)
    return {
        "backend": backend.name,
        "tick_ms": tick,
        "sustained": sustained,
        "breaks_at": breaks,
        "rows": rows,
    }
