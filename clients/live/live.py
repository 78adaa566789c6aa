"""Live conversion: two sound cards, one worker, one pump; devices may come and go."""

import os
import queue
import threading
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from rtvc.clients.live.audio_streams import STREAMS, Callback, Stream, check_sound
from rtvc.clients.live.devices import Device, pick, refresh
from rtvc.engine.backends.base import Backend
from rtvc.engine.callback.duplex import Pump
from rtvc.engine.streams.backlog import Backlog
from rtvc.engine.streams.gate import Gate
from rtvc.engine.streams.session import Session
from rtvc.errors import DeviceError
from rtvc.files import StrPath, check_target
from rtvc.models.streaming.interface import Styled

Samples = NDArray[np.float32]

NAP_S = 0.001
"""How long the worker sleeps when there is nothing to do: it is never woken by a lock that the
audio callback holds."""
PRIORITY = -11
"""The nice value that audio threads ask for."""
RECORDED = ("input.wav", "output.wav")
"""What a recorder writes into its folder: what was said, and what was heard."""
RETRY_S = 1.0
"""How often a lost device is looked for."""


def hurry() -> bool:
    """Asks for a higher priority for this thread and those it starts: sound comes before other
    work. Returns whether it was granted."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    except (
        OSError,
        AttributeError,
    ):  # not permitted, or not a POSIX system: nothing is lost but some protection from load
        return False
    return True


class LiveConfig(BaseModel):
    """What `rtvc live` can be told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: str | None = None
    output: str | None = None
    input_rate: int | None = None
    output_rate: int | None = None
    block_ms: float = Field(10.0, gt=0, le=200)
    margin_ms: float = Field(10.0, ge=0, le=500)
    sound: str = "sounddevice"
    gate: bool = True
    lookback_ms: float = Field(0.0, ge=0, le=500)
    pitch: float = 0.0
    prosody: float = 1.0
    monitor: bool = False
    record: Path | None = None


def check_devices(config: LiveConfig, sources: Iterable[StrPath] = ()) -> tuple[Device, Device]:
    """The microphone and the loudspeaker that are meant; to be asked before long work.

    Args:
        config: of the conversion.
        sources: files that are read, over which nothing is to be recorded.

    Raises:
        ConfigError: an audio backend that is none.
        DeviceError: a device that is not there, or several that could be meant.
        OutputError: nothing can be recorded to the folder.
    """
    check_sound(config.sound)
    found = pick(config.input, "input"), pick(config.output, "output")
    if config.record is not None:
        for name in RECORDED:
            check_target(config.record / name, sources=sources, folders=True)
    return found


class Recorder:
    """Writes what was said and what was heard to two files, from a thread of its own behind a
    bounded queue."""

    def __init__(self, folder: Path, rate_in: int, rate_out: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.files = [
            soundfile.SoundFile(folder / name, "w", rate, 1, "PCM_16")
            for name, rate in zip(RECORDED, (rate_in, rate_out), strict=True)
        ]
        self.waiting: queue.Queue[tuple[Samples, Samples] | None] = queue.Queue(512)
        self.lost = 0
        self.thread = threading.Thread(target=self._write, name="rtvc-recorder", daemon=True)
        self.thread.start()

    def __call__(self, said: Samples, heard: Samples) -> None:
        """Queues a stretch of both; when the disk is too slow, it is counted and let go."""
        try:
            self.waiting.put_nowait((said, heard))
        except queue.Full:
            self.lost += 1

    def close(self) -> None:
        """Writes what still waits and closes the files."""
        self.waiting.put(None)
        self.thread.join()

    def _write(self) -> None:
        while (item := self.waiting.get()) is not None:
            for file, samples in zip(self.files, item, strict=True):
                file.write(np.clip(samples, -1, 1))
        for file in self.files:
            file.close()


def level(samples: Samples) -> float:
    """RMS in dB below full scale, not under -120."""
    return (
        float(10 * np.log10(np.mean(np.square(samples, dtype=np.float64)) + 1e-12))
        if len(samples)
        else -120.0
    )


class Live:
    """A running conversion; use it as a context manager.

    Args:
        backend: what runs the steps.
        voice: the voice to speak with.
        config: devices, sizes and switches.
        streams: opens a stream, as `STREAMS[config.sound]` does; tests and other sound systems
            bring their own.
    """

    def __init__(
        self, backend: Backend, voice: Styled, config: LiveConfig, *, streams: Any = None
    ) -> None:
        if streams is None:
            check_sound(config.sound)
        self.backend, self.config = backend, config
        self.open = STREAMS[config.sound] if streams is None else streams
        source, sink = pick(config.input, "input"), pick(config.output, "output")
        self.rate_in, self.rate_out = (
            config.input_rate or source.rate,
            config.output_rate or sink.rate,
        )
        block, chunk = config.block_ms / 1000, backend.chunk / backend.sample_rate
        nominal = chunk + block
        self.session = Session(
            backend,
            voice,
            sample_rate=self.rate_in,
            output_rate=self.rate_out,
            pitch=config.pitch,
            prosody=config.prosody,
            gate=(
                Gate(backend.sample_rate, lookback=config.lookback_ms / 1000)
                if config.gate
                else None
            ),
            backlog=Backlog(backend.sample_rate, nominal=nominal, limit=nominal + 0.060),
        )
        self.pump = Pump(self.session, margin=config.margin_ms / 1000, monitor=config.monitor)
        self.recorder = (
            Recorder(config.record, self.rate_in, self.rate_out) if config.record else None
        )
        self.streams: list[Stream] = []
        self.state, self.losses, self.problem = "starting", 0, ""
        self.levels, self.busy = [-120.0, -120.0], deque[tuple[float, float]](maxlen=400)
        self._xruns = 0
        self._stop = threading.Event()
        self._worker = threading.Thread(target=self._work, name="rtvc-worker", daemon=True)
        self._tried, self.hurried = 0.0, False

    def __enter__(self) -> "Live":
        self.warm()
        self.hurried = hurry()
        self._start_streams()
        self.pump.tap = self._hear
        self._worker.start()
        self.state = "running"
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._worker.is_alive():
            self._worker.join(5)
        self._stop_streams()
        if self.recorder is not None:
            self.recorder.close()
        self.state = "stopped"

    def warm(self) -> None:
        """Runs the model a few times before anybody speaks: first calls compile and allocate."""
        state = self.backend.initial(1)
        x = state.new_zeros(1, 1, self.backend.chunk)
        for _ in range(3):
            _, state = self.backend.step(x, self.session.line.voice, state)

    def supervise(self) -> None:
        """Call it a few times a second: notices a lost device and takes it back when it returns."""
        if self.state == "running" and not all(stream.alive for stream in self.streams):
            self.state, self.losses, self.problem = (
                "lost",
                self.losses + 1,
                "an audio device stopped",
            )
            self._stop_streams()
        if self.state == "lost" and time.monotonic() - self._tried > RETRY_S:
            self._tried = time.monotonic()
            try:
                refresh()
                self._start_streams()
                self.state, self.problem = "running", ""
            except DeviceError as error:
                self._stop_streams()
                self.problem = str(error)

    def status(self) -> dict[str, Any]:
        """Everything worth showing, as plain numbers: times in milliseconds, levels in dB."""
        lags = self.pump.playout.lags() * 1000
        p50, p95, p99 = np.percentile(lags, [50, 95, 99]).tolist() if len(lags) else (0.0, 0.0, 0.0)
        busy, audio = (
            (sum(part) for part in zip(*self.busy, strict=True)) if self.busy else (0.0, 0.0)
        )
        line = self.session.line
        return {
            "state": self.state,
            "problem": self.problem,
            "level_in_db": round(self.levels[0], 1),
            "level_out_db": round(self.levels[1], 1),
            "lag_ms": round(self.pump.playout.lag * 1000, 1),
            "lag_p50_ms": round(p50, 1),
            "lag_p95_ms": round(p95, 1),
            "lag_p99_ms": round(p99, 1),
            "expected_ms": round(
                1000
                * (
                    self.session.latency
                    + self.config.block_ms / 1000
                    + self.config.margin_ms / 1000
                ),
                1,
            ),
            "resets": self.session.resets,
            "repaired": self.pump.repaired,
            "xruns": self._xruns + sum(stream.xruns for stream in self.streams),
            "underruns": self.pump.playout.underruns,
            "dropped_ms": round(1000 * self.pump.dropped / self.rate_out, 1),
            "drift_ppm": round(1e6 * self.pump.outlet.control.correction, 1),
            "rtf": round(busy / audio, 3) if audio else 0.0,
            "steps": self.session.steps,
            "skipped": line.gate.skipped if line.gate else 0,
            "losses": self.losses,
            "bypass": self.session.wet == 0.0,
            "muted": self.pump.muted,
            "pitch": self.session.pitch,
        }

    def _capture(self, block: Samples, at: float) -> None:
        self.pump.capture(block, at, time.perf_counter())

    def _start_streams(self) -> None:
        source, sink = pick(self.config.input, "input"), pick(self.config.output, "output")
        plan: list[tuple[Device, Callback, int, bool]] = [
            (source, self._capture, self.rate_in, True),
            (sink, self.pump.play, self.rate_out, False),
        ]
        if self.pump.monitor is not None:
            plan.append(
                (pick(None, "output"), self.pump.monitor.playout.read, self.rate_out, False)
            )
        for device, callback, rate, incoming in plan:
            block = round(self.config.block_ms / 1000 * rate)
            self.streams.append(
                self.open(device, callback, rate=rate, block=block, incoming=incoming)
            )

    def _stop_streams(self) -> None:
        for stream in self.streams:
            self._xruns += stream.xruns
            stream.stop()
        self.streams.clear()

    def _work(self) -> None:
        while not self._stop.is_set():
            began = time.perf_counter()
            converted = self.pump.turn(began)
            if converted:
                self.busy.append((time.perf_counter() - began, converted / self.rate_out))
            else:
                time.sleep(NAP_S)

    def _hear(self, said: Samples, heard: Samples) -> None:
        self.levels[0] = level(said)
        if len(heard):
            self.levels[1] = level(heard)
        if self.recorder is not None:
            self.recorder(said, heard)
