"""`rtvc bench stalls`: half an hour of simulated conversation with random stalls, every sample
accounted for."""

import gc
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rtvc.audio.samples import Samples
from rtvc.benchmarks.live.conversation import Stall, converse
from rtvc.engine.backends.base import Backend
from rtvc.engine.backends.eager import TorchBackend
from rtvc.engine.callback.duplex import Pump
from rtvc.engine.streams.backlog import Backlog
from rtvc.engine.streams.session import Session
from rtvc.layers.contract import State
from rtvc.percentiles import percentiles
from rtvc.voices.voice import Voice

WRAP = 1 << 20
"""Input samples count up and begin again here: whole numbers that float32 holds exactly, also
divided by this power of two, which keeps them within full scale."""
RECOVERY_S = 0.2
"""Within this after a stall the lag must be back."""
GROWTH = 0.01
"""Memory may grow by this share after the first tenth."""
JUDGED_MIN = 5.0
"""Shorter conversations are all warm-up: their memory is reported, not judged."""


class DelayLine(nn.Module):
    """A converter that gives its input back, 37.5 ms later: what goes in can be recognised when it
    comes out."""

    sample_rate, hop, latency = 24_000, 300, 900

    def initial(self, batch: int) -> State:
        """Silence, (B, 1, latency)."""
        return torch.zeros(batch, 1, self.latency)

    def condition(
        self, acoustic: Tensor, prosodic: Tensor, *, pitch: float = 0.0, prosody: float = 1.0
    ) -> Tensor:
        """Nothing to know of a voice: (B, 1)."""
        return acoustic[:, :1]

    def forward(self, x: Tensor, voice: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, 1, N) -> the same, `latency` samples later."""
        x = torch.cat([state, x], -1)
        return x[..., : -self.latency], x[..., -self.latency :]


class Accountant:
    """Hears what is played and counts what is missing: samples are whole numbers that count up,
    fades are not whole."""

    def __init__(self) -> None:
        self.last: int | None = None
        self.missing = self.repeated = self.whole = 0

    def __call__(self, out: Samples) -> None:
        """One block (N,), as it sounded."""
        follows = np.diff(out) == 1  # whole numbers inside a fade stand alone
        counted = (
            (out >= 1)
            & (out == np.round(out))
            & (np.append(follows, False) | np.insert(follows, 0, False))
        )
        numbers = out[counted].astype(np.int64)
        if not len(numbers):
            return
        before = numbers[0] - 1 if self.last is None else self.last
        steps = (np.diff(numbers, prepend=before) - 1) % WRAP
        back = steps > WRAP // 2
        self.repeated += int(back.sum())
        self.missing += int(steps[~back].sum())
        self.whole += len(numbers)
        self.last = int(numbers[-1])


def resident() -> int:
    """Bytes of memory that this process holds now; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096
    except OSError:
        return 0


def random_stalls(seconds: float, seed: int) -> list[Stall]:
    """Interruptions of 50 ms to 5 s, short ones more often, every few seconds; one in five takes
    the sound cards along."""
    rng, drawn, at = np.random.default_rng(seed), list[Stall](), 5.0
    while at < seconds - 8:
        length = float(np.exp(rng.uniform(np.log(0.05), np.log(5.0))))
        drawn.append(Stall(at, length, bool(rng.random() < 0.2)))
        at += length + float(rng.uniform(1.0, 20.0))
    return drawn


def stalls(minutes: float, *, backend: Backend | None = None, seed: int = 0) -> dict[str, Any]:
    """Runs the conversation; with the delay line in place of a model every sample is traced.

    Returns:
        `stalls`, `recovery_max_s`, `dropped_samples` (declared), `missing_samples` (heard to be
        missing), `lost_by_card`, `undeclared` (missing beyond both and the fades), `repeated`,
        `lag_p50_ms` and p95, `memory_growth`, `passed`.
    """
    runner = TorchBackend(DelayLine(), 600) if backend is None else backend
    silence = Voice(torch.zeros(128), torch.zeros(128))
    session = Session(runner, silence, backlog=Backlog(24_000, nominal=0.035, limit=0.060))
    pump, seconds, accountant = Pump(session, correct_drift=False), 60 * minutes, Accountant()
    interruptions, memory = random_stalls(seconds, seed), list[int]()

    def source(start: int, count: int) -> Samples:
        counted: Samples = ((np.arange(start, start + count) % WRAP + 1) / WRAP).astype(np.float32)
        return counted

    def quiet(start: int, count: int) -> Samples:
        tone: Samples = (0.1 * np.sin(np.arange(start, start + count) * 0.05)).astype(np.float32)
        return tone

    gc.collect()
    conversation = converse(
        pump,
        seconds,
        source if backend is None else quiet,
        stalls=interruptions,
        listen=(lambda block: accountant(block * WRAP)) if backend is None else None,
        each_second=lambda now: memory.append(resident()),
    )
    warm = max(1, len(memory) // 10)
    growth = (
        max(memory[-warm:]) / max(max(memory[warm : 2 * warm], default=1), 1) - 1
        if memory and memory[-1]
        else 0.0
    )
    by_card = sum(round(stall.length * 24_000) for stall in interruptions if stall.machine)
    fades = (
        2
        * pump.playout.rise.size
        * (pump.playout.underruns + pump.playout.drops + len(interruptions) * 3)
    )
    blocks = 240 * 3 * sum(stall.machine for stall in interruptions)
    undeclared = max(0, accountant.missing - pump.dropped - by_card - fades - blocks)
    recovery = max(conversation.recoveries, default=0.0)
    flat = growth < GROWTH or minutes < JUDGED_MIN
    lags = conversation.lags[np.isfinite(conversation.lags)]
    return {
        "minutes": minutes,
        "backend": runner.name if backend is not None else "delay line",
        "stalls": len(interruptions),
        "recovery_max_s": round(recovery, 3),
        "dropped_samples": pump.dropped,
        "missing_samples": accountant.missing,
        "lost_by_card": by_card,
        "undeclared": undeclared,
        "repeated": accountant.repeated,
        "underruns": pump.playout.underruns,
        **percentiles(lags, "lag_", shares=(50, 95)),
        "memory_growth": round(growth, 4),
        "passed": bool(
            recovery <= RECOVERY_S and undeclared == 0 and accountant.repeated == 0 and flat
        ),
    }
