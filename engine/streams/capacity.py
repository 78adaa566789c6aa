"""How many streams a machine holds: measured, not guessed."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from rtvc.engine.backends.base import Backend
from rtvc.voices.voice import STYLE, Voice

HEADROOM = 0.8
"""Share of a tick that steps may fill: the rest is for edges, the gate, and whatever else the
machine does."""


class StepTimes:
    """The latest step times, in seconds, and their percentiles.

    Args:
        window: how many are kept.
    """

    def __init__(self, window: int = 4096) -> None:
        self.times: deque[float] = deque(maxlen=window)
        self.count = 0

    def add(self, seconds: float) -> None:
        """One more step."""
        self.times.append(seconds)
        self.count += 1

    def percentile(self, share: float) -> float:
        """Seconds under which `share` percent of the kept times lie; 0 when there are none."""
        return float(np.percentile(self.times, share)) if self.times else 0.0


@dataclass(frozen=True)
class Capacity:
    """What `measure` says.

    Attributes:
        tick: seconds of audio a step.
        p95: 95th percentile of the step time in seconds, by number of rows.
        rows: the largest number of rows whose p95 fits the tick with headroom.
    """

    tick: float
    p95: dict[int, float]
    rows: int


def step_time(
    backend: Backend, rows: int, steps: int, clock: Callable[[], float] = time.perf_counter
) -> StepTimes:
    """Times `steps` steps of `rows` rows of quiet noise, after two that warm up."""
    size = next((b for b in backend.batches if b >= rows), rows)
    with torch.inference_mode():
        x = torch.randn(size, 1, backend.chunk, device=backend.device) * 0.05
        voice = Voice(torch.zeros(STYLE), torch.zeros(STYLE))
        condition = backend.condition(voice).repeat(size, 1)
        state, times = backend.initial(size), StepTimes(steps)
        for index in range(steps + 2):
            before = clock()
            y, state = backend.step(x, condition, state)
            y.cpu()  # a GPU is done only when its output is here
            if index >= 2:
                times.add(clock() - before)
    return times


def measure(
    backend: Backend,
    *,
    most: int = 64,
    steps: int = 24,
    clock: Callable[[], float] = time.perf_counter,
) -> Capacity:
    """Times steps of 1, 2, 4 ... rows until they no longer fit the tick, and places the capacity
    between the last two.

    Args:
        backend: what to measure.
        most: rows beyond which it stops asking.
        steps: timed steps for every number of rows.
        clock: what steps are timed by.
    """
    tick, p95 = backend.chunk / backend.sample_rate, dict[int, float]()
    budget, rows, fits = tick * HEADROOM, 1, 0
    while rows <= most:
        p95[rows] = step_time(backend, rows, steps, clock).percentile(95)
        if p95[rows] > budget:
            break
        fits, rows = rows, rows * 2
    if fits and rows <= most:
        slope = (p95[rows] - p95[fits]) / (rows - fits)
        fits += int((budget - p95[fits]) / slope)
    return Capacity(tick, p95, min(fits, most))
