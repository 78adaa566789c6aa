"""Backends side by side: how like torch eager each sounds, how long a step takes, and how many
sessions one core would hold with it."""

import time
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rtvc.engine.backends.base import Backend
from rtvc.engine.streams.capacity import HEADROOM
from rtvc.voices.voice import Voice

ROWS = 4
"""Sessions of the second batch that is timed: what one more session costs lies between the two."""
MOST = 256
"""Sessions beyond which nobody counts."""


class Figures(TypedDict):
    """What was measured of one backend.

    Attributes:
        p50_ms: median time of a step of one session.
        p95_ms: its 95th percentile.
        cpu_ms: its median processor time.
        fidelity_db: likeness to the first backend, see `fidelity`.
        many_ms: median processor time of a step of `ROWS` sessions.
        sessions: that one core holds, see `held`.
    """

    p50_ms: float
    p95_ms: float
    cpu_ms: float
    fidelity_db: float
    many_ms: float
    sessions: int


def probe(chunk: int, steps: int, rate: int = 24_000) -> Tensor:
    """A voice-like test signal (steps, 1, 1, chunk): harmonics of a gliding pitch in syllables, and
    breath."""
    t = np.arange(chunk * steps) / rate
    phase = 2 * np.pi * np.cumsum(140 + 40 * np.sin(2 * np.pi * 0.7 * t)) / rate
    voiced = sum(np.sin(k * phase) / k for k in range(1, 24)) * np.clip(
        np.sin(2 * np.pi * 3 * t), 0, 1
    )
    breath = np.random.default_rng(0).standard_normal(len(t)) * 0.02
    return torch.from_numpy((0.1 * voiced + breath).astype(np.float32)).reshape(steps, 1, 1, chunk)


def fidelity(got: NDArray[np.float64], expected: NDArray[np.float64], size: int = 1024) -> float:
    """Signal over error of the magnitude spectra of two signals (N,), in dB."""

    def magnitudes(x: NDArray[np.float64]) -> NDArray[np.float64]:
        frames = np.lib.stride_tricks.sliding_window_view(np.pad(x, (0, size)), size)[:: size // 4]
        return np.abs(np.fft.rfft(frames * np.hanning(size)))

    target = magnitudes(expected)
    error = float(((magnitudes(got) - target) ** 2).sum())
    return 10 * float(np.log10(max((target**2).sum(), 1e-30) / max(error, 1e-30)))


def held(batches: Sequence[int], tick_ms: float, one_ms: float, many_ms: float) -> int:
    """Sessions whose steps fit `HEADROOM` of a tick, by what batches of 1 and of `ROWS` cost: a
    straight line between and beyond, and every batch padded to one that the backend was compiled
    for."""
    slope = max(0.0, (many_ms - one_ms) / (ROWS - 1))

    def cost(rows: int) -> float:
        whole = 0.0
        if batches and rows > batches[-1]:
            whole, rows = rows // batches[-1] * cost(batches[-1]), rows % batches[-1]
        size = next((batch for batch in batches if batch >= rows), rows)
        return whole + (one_ms + slope * (size - 1) if rows else 0.0)

    return next((n for n in range(MOST) if cost(n + 1) > HEADROOM * tick_ms), MOST)


def compare(backends: Sequence[Backend], steps: int = 40) -> list[Figures]:
    """Steps all backends in turn over the same signal, with one session and with `ROWS`; the first
    is the reference.

    Times of processors are those of the whole process: nothing else may compute in it. They, not
    the clock's, say how many sessions fit, so that other programs do not decide which is best.
    """
    outputs, walls, cpus = _stepped(backends, steps, 1)
    _, _, many = _stepped(backends, max(8, steps // 2), ROWS)
    tick = 1000 * backends[0].chunk / backends[0].sample_rate
    rows = []
    for index, backend in enumerate(backends):
        p50, p95 = np.percentile(walls[index], [50, 95])
        one_ms, many_ms = float(np.median(cpus[index])), float(np.median(many[index]))
        rows.append(
            Figures(
                p50_ms=float(p50),
                p95_ms=float(p95),
                cpu_ms=one_ms,
                fidelity_db=fidelity(outputs[index], outputs[0]),
                many_ms=many_ms,
                sessions=held(backend.batches, tick, one_ms, many_ms),
            )
        )
    return rows


def _stepped(
    backends: Sequence[Backend], steps: int, rows: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """What the first session heard, (K, N), and milliseconds by the clock and of the processor,
    (K, steps) less those that warm up, of K backends."""
    signal, generator = probe(backends[0].chunk, steps), torch.Generator().manual_seed(0)
    voice = Voice(
        torch.randn(128, generator=generator) * 0.1, torch.randn(128, generator=generator) * 0.1
    )
    conditions = [backend.condition(voice).repeat(rows, 1) for backend in backends]
    states = [backend.initial(rows) for backend in backends]
    walls, cpus = np.zeros((len(backends), steps)), np.zeros((len(backends), steps))
    outputs = np.zeros((len(backends), steps, backends[0].chunk))
    for step in range(steps):
        for index, backend in enumerate(backends):
            x = signal[step].to(backend.device).expand(rows, 1, -1).contiguous()
            wall, cpu = time.perf_counter(), time.process_time()
            y, states[index] = backend.step(x, conditions[index], states[index])
            outputs[index, step] = y[0, 0].cpu().numpy()
            walls[index, step] = 1000 * (time.perf_counter() - wall)
            cpus[index, step] = 1000 * (time.process_time() - cpu)
    warm = max(1, steps // 8)
    return outputs.reshape(len(backends), -1), walls[:, warm:], cpus[:, warm:]
