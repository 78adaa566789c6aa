"""`rtvc bench loopback`: clicks or speech through the live path on virtual devices, from microphone
to speaker, by the clock of the room.

The microphone and the speaker are two channels of one sink of PulseAudio or PipeWire
(`benchmarks.live.pulse`), so their recording shows the delay directly. The breakdown says where it
comes from; what is left over is the sound server's.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtvc.audio.samples import Samples
from rtvc.benchmarks.live.pulse import Room, recorded, room
from rtvc.errors import DeviceError
from rtvc.files import write_json
from rtvc.percentiles import percentiles

PERIOD_S = 1.0
"""Between two clicks: longer than any delay looked for, so that none is taken for the next."""
LONGEST_S = 0.8
"""Delays are looked for up to here."""


def clicks(seconds: float, rate: int, seed: int = 0) -> Samples:
    """Bursts of 30 ms of noise every `PERIOD_S`, which no two are alike and every converter lets
    through; (N,)."""
    rng, out = np.random.default_rng(seed), np.zeros(int(seconds * rate), np.float32)
    shape = np.hanning(int(0.030 * rate)).astype(np.float32)
    for start in range(int(0.2 * rate), len(out) - len(shape), int(PERIOD_S * rate)):
        out[start : start + len(shape)] = (
            0.5 * shape * rng.standard_normal(len(shape)).clip(-1.5, 1.5)
        )
    return out


def envelope(samples: Samples, rate: int) -> NDArray[np.float64]:
    """Root of the power in 2 ms steps of 0.5 ms, (K,)."""
    step = rate // 2000
    power = np.add.reduceat(
        np.square(samples, dtype=np.float64), np.arange(0, len(samples) - step, step)
    )
    return np.asarray(np.sqrt(np.convolve(power, np.ones(4), "same")))


def delay_of(
    source: Samples, output: Samples, rate: int, window: float = PERIOD_S
) -> NDArray[np.float64]:
    """Delays in seconds of what was heard against what was said, one for each window that holds
    sound, (K,).

    By the peak of the normalised correlation of the envelopes: the converter changes the waveform,
    not when things happen. Windows in which no delay explains what was heard (correlation under
    0.5) are left out.
    """
    a, b = envelope(source, rate), envelope(output, rate)
    size, longest, floor = (
        int(window * 2000),
        int(LONGEST_S * 2000),
        0.05 * a.max() if len(a) else 0.0,
    )
    delays = []
    for start in range(0, len(a) - size - longest, size):
        part = a[start : start + size]
        if part.max() < floor or part.std() == 0:
            continue
        part = (part - part.mean()) / (part.std() * size)
        views = np.lib.stride_tricks.sliding_window_view(b[start : start + size + longest], size)
        deviations = views.std(1)
        scores = np.where(deviations > 1e-9, (views @ part) / np.maximum(deviations, 1e-9), 0.0)
        best = int(scores.argmax())
        if scores[best] > 0.5:
            delays.append(best / 2000)
    return np.array(delays)


def converse_live(
    place: Room, arguments: list[str], source: Samples, seconds: float
) -> tuple[dict[str, Any], Samples]:
    """Runs a live client in a process of its own while `source` is played; returns its last state
    and the room's recording.

    Args:
        place: the running sound server.
        arguments: of the Python process; it must print JSON lines, the first when it is running.
        source: what is played into the microphone, (N,).
        seconds: how long it takes to play.

    Raises:
        DeviceError: when the client ends early.
    """
    environment = {
        **os.environ,
        **place.environment,
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
    }
    path = place.folder / "room.f32"
    client = subprocess.Popen(
        [sys.executable, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert client.stdout is not None and client.stderr is not None
    try:
        if not client.stdout.readline():
            raise DeviceError(f"the live client ended early: {client.stderr.read().strip()[-500:]}")
        with place.recording(path):
            time.sleep(0.3)
            player = place.say(source)
            time.sleep(seconds + 1.0)
            player.terminate()
            player.wait(10)
        lines = [
            row for row in client.communicate(timeout=30)[0].splitlines() if row.startswith("{")
        ]
    finally:
        client.kill()
    return (json.loads(lines[-1]) if lines else {}), recorded(path)


def loopback(
    voice: str,
    *,
    seconds: float = 20.0,
    engine: str = "auto",
    chunk_ms: float = 12.5,
    block_ms: float = 2.5,
    margin_ms: float | None = None,
    server: str = "pulseaudio",
    **options: str,
) -> dict[str, Any]:
    """Capture-to-playback latency of `rtvc live` with PulseAudio or PipeWire.

    Args:
        voice: recording or voice file to speak with.
        seconds: how long.
        engine: as of `rtvc live`; like `chunk_ms`, `block_ms` and `margin_ms`.
        chunk_ms: see `engine`.
        block_ms: see `engine`.
        margin_ms: see `engine`.
        server: `pulseaudio` or `pipewire`.
        options: more of `rtvc live`, by name.

    Returns:
        `server`, `options`, `p50_ms`, `p95_ms`, `p99_ms`, `clicks`, `xruns`, `underruns`,
        `dropped_samples`, `own_meter_p50_ms`, the `load` of the machine, and `stages`: what
        `rtvc live` says that each part adds (milliseconds), and `unseen`, which is the rest.

    Raises:
        DeviceError: nothing was heard, or the live client ended early.
    """
    code = "import sys; from rtvc.cli import main; sys.argv = ['rtvc', *sys.argv[1:]]; main()"
    asked = {"voice": voice, "engine": engine, "chunk": chunk_ms, "block": block_ms, **options}
    if margin_ms is not None:
        asked["margin"] = margin_ms
    arguments = ["-c", code, "live", "--no-gate", "--json", "--seconds", str(seconds + 3.0)]
    for name, value in asked.items():
        arguments += [f"--{name}", str(value)]
    with tempfile.TemporaryDirectory(), room(server=server) as place:
        state, (source, output) = converse_live(
            place, arguments, clicks(seconds, place.rate), seconds
        )
        rate = place.rate
    delays = delay_of(source, output, rate)
    if not len(delays):
        raise DeviceError(
            "nothing that was said was heard: run `rtvc doctor`, and try a longer --seconds"
        )
    figures = percentiles(delays, digits=2)
    stages: dict[str, float] = state.get("stages", {})
    return {
        "server": server,
        "options": {name: value for name, value in asked.items() if name != "voice"},
        **figures,
        "clicks": len(delays),
        "xruns": state.get("xruns", 0),
        "underruns": state.get("underruns", 0),
        "dropped_samples": round(state.get("dropped_ms", 0.0) * rate / 1000),
        "own_meter_p50_ms": state.get("lag_p50_ms"),
        "load": round(os.getloadavg()[0], 1),
        "stages": {**stages, "unseen": round(figures["p50_ms"] - sum(stages.values()), 2)},
    }


def save(result: dict[str, Any], path: Path) -> None:
    """Writes a result as JSON."""
    write_json(path, result)
