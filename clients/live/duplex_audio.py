"""What every live conversion stands on, whether the model runs here or behind a server: devices, a
worker between their callbacks, a recorder, and the numbers that all of them give."""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from rtvc.audio.samples import Samples
from rtvc.clients.input.front import Front
from rtvc.clients.input.meter import InputMeter
from rtvc.clients.input.suppressor import suppressor
from rtvc.clients.live.audio_streams import stream_type
from rtvc.clients.live.config import LiveConfig
from rtvc.clients.live.open_devices import Devices, Opener, Role, Route
from rtvc.clients.live.status import Status
from rtvc.clients.recording.recorder import Recorder
from rtvc.clients.sound.bell import Bell
from rtvc.clients.sound.priority import WORKER, Urgency, raise_priority
from rtvc.engine.callback.duplex import Front as FrontOf
from rtvc.engine.callback.duplex import Outlet
from rtvc.engine.callback.placing import Stretch
from rtvc.errors import DeviceError
from rtvc.percentiles import percentiles

NAP_S = 0.001
"""How long the worker sleeps at most when there is nothing to do."""
SWITCH_S = 0.001
"""How long a thread of Python may keep an audio callback waiting."""
RECORDINGS = Path("rtvc-recordings")
"""Folder of recordings that are begun without naming one, in the user's own."""
QUIETEST_DB = -120.0
"""The level of digital silence."""


class Duplex(Protocol):
    """What stands between the two callbacks: `rtvc.engine.callback.duplex.Pump` here, `RemotePump`
    before a server."""

    outlet: Outlet
    monitor: Outlet | None
    muted: bool
    tap: Callable[[Stretch, list[Stretch]], None] | None
    front: FrontOf | None

    def capture(self, block: Samples, at: float, arrived: float | None = None) -> None:
        """The input callback's: takes a block (N,)."""
        ...

    def play(self, out: Samples, at: float) -> None:
        """The output callback's: fills out (N,)."""
        ...

    def listen(self, on: bool) -> None:
        """Whether a second listener is fed."""
        ...

    def turn(self, now: float) -> int:
        """The worker's: does what there is to do; returns the output samples that it came to."""
        ...


def level(samples: Samples) -> float:
    """RMS in dB below full scale, not under -120."""
    if not len(samples):
        return QUIETEST_DB
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    return 10 * float(np.log10(power + 10 ** (QUIETEST_DB / 10)))


class DuplexAudio:
    """Devices, worker and recorder of one live conversion.

    Args:
        pump: what stands between the callbacks.
        config: devices, sizes and switches.
        rate_in: of the input, in Hz.
        rate_out: of the output, in Hz.
        opener: opens a stream; by default what `config.sound` names.

    Attributes:
        failure: what ended the worker, if anything did.
        front: what is done to the microphone before anybody is converted.
        recorder: of what was said and heard.
        listeners: hear every block (N,) of the microphone, in the worker.

    Raises:
        ConfigError: an audio backend that does not exist.
        DependencyError: the noise suppressor is wanted and its package is not installed.
    """

    def __init__(
        self,
        pump: Duplex,
        config: LiveConfig,
        rate_in: int,
        rate_out: int,
        opener: Opener | None = None,
    ) -> None:
        self.pump, self.config, self.rate_in, self.rate_out = pump, config, rate_in, rate_out
        routes: dict[Role, Route] = {
            "input": Route(config.input, "input", rate_in, self._capture),
            "output": Route(config.output, "output", rate_out, pump.play),
        }
        if pump.monitor is not None:
            routes["monitor"] = Route(None, "output", rate_out, pump.monitor.playout.read)
        self.devices = Devices(routes, config.block_ms, opener or stream_type(config.sound))
        self.recorder = Recorder(config.record or Path.home() / RECORDINGS, rate_in, rate_out)
        self.front = Front(rate_in, suppressor, denoise=config.denoise, agc=config.agc)
        self.meter = InputMeter(rate_in)
        self.listeners = list[Callable[[Samples], None]]()
        self.failure: BaseException | None = None
        self._level_in = self._level_out = QUIETEST_DB
        self._busy = deque[tuple[float, float]](maxlen=400)  # (seconds taken, seconds of audio)
        self._stop = threading.Event()
        self._bell = Bell()
        self._worker = threading.Thread(target=self._work, name="rtvc-worker", daemon=True)

    def start(self) -> None:
        """Opens the devices and starts the worker.

        Raises:
            DeviceError: a device cannot be opened.
            OutputError: nothing can be recorded to the folder.
        """
        raise_priority()
        sys.setswitchinterval(min(SWITCH_S, sys.getswitchinterval()))
        self.pump.tap, self.pump.front = self._measure, self.front
        try:
            if self.config.record is not None:
                self.recorder.start()
            self.devices.open()
        except BaseException:
            self.stop()
            raise
        self._worker.start()

    def stop(self) -> None:
        """Ends the worker, closes the devices, and finishes the recording."""
        self._stop.set()
        if self._worker.is_alive():
            self._worker.join(5)
        self.devices.close()
        if not self._worker.is_alive():  # else it may still be waiting
            self._bell.close()
        self.recorder.stop()

    def use(self, role: Role, device: str | None) -> None:
        """Another microphone, loudspeaker or monitor, while somebody speaks.

        Args:
            role: of the device.
            device: index, name or part of it; empty for the default, None for no monitor.

        Raises:
            DeviceError: there is none such, or it cannot be opened; what was open stays open.
        """
        if role != "monitor":
            self.devices.switch(role, device or None)
            return
        if device is None:
            self.devices.leave("monitor")
            self.pump.listen(False)
            return
        if self.pump.monitor is None:
            self.pump.listen(True)
        assert self.pump.monitor is not None
        read = self.pump.monitor.playout.read
        try:
            self.devices.switch(
                "monitor", device or None, Route(device or None, "output", self.rate_out, read)
            )
        except DeviceError:
            if "monitor" not in self.devices.routes:
                self.pump.listen(False)
            raise

    @property
    def rtf(self) -> float:
        """Share of real time that the worker was busy lately."""
        if not self._busy:
            return 0.0
        busy, audio = (sum(part) for part in zip(*self._busy, strict=True))
        return float(busy / audio)

    def status(
        self, *, latency: float, dropped: float, rtf: float, bypass: bool, pitch: float
    ) -> Status:
        """What devices, worker and player know, and what only the conversion knows.

        Args:
            latency: seconds that the conversion itself takes.
            dropped: seconds of audio left out.
            rtf: as of `Status`.
            bypass: as of `Status`.
            pitch: as of `Status`.
        """
        playout = self.pump.outlet.playout
        lags = percentiles(playout.lags())
        return Status(
            state=self.devices.state,
            problem=self.devices.problem,
            level_in_db=round(self._level_in, 1),
            level_out_db=round(self._level_out, 1),
            lag_ms=round(playout.lag * 1000, 1),
            lag_p50_ms=lags["p50_ms"],
            lag_p95_ms=lags["p95_ms"],
            lag_p99_ms=lags["p99_ms"],
            expected_ms=round(
                1000 * (latency + self.front.late + playout.margin / playout.rate)
                + self.config.block_ms,
                1,
            ),
            stages=self._stages(latency),
            xruns=self.devices.xruns,
            underruns=playout.underruns,
            dropped_ms=round(1000 * dropped, 1),
            drift_ppm=round(1e6 * self.pump.outlet.control.correction, 1),
            rtf=round(rtf, 3),
            losses=self.devices.losses,
            bypass=bypass,
            muted=self.pump.muted,
            pitch=pitch,
            input_problem=self.meter.verdict,
            denoise=self.front.suppressor is not None,
            agc=self.front.gain is not None,
            gain_db=round(self.front.gain.db, 1) if self.front.gain else None,
            recording=self.recorder.status(),
        )

    def _stages(self, latency: float) -> dict[str, float]:
        """What adds to the lag, in milliseconds."""
        computing = np.median([taken for taken, _ in self._busy]) if self._busy else 0.0
        seconds = {
            "microphone": self.devices.held("input"),
            "block": self.config.block_ms / 1000,
            "front": self.front.late,
            "conversion": latency,
            "computing": float(computing),
            "queue": self.pump.outlet.playout.level,
            "loudspeaker": self.devices.held("output"),
        }
        return {name: round(1000 * each, 2) for name, each in seconds.items()}

    def _capture(self, block: Samples, at: float) -> None:
        if not self.pump.outlet.playout.asked:
            return  # nobody listens yet: what was said before is not kept for them
        self.pump.capture(block, at, time.perf_counter())
        self._bell.ring()

    def _work(self) -> None:
        urgency = Urgency(WORKER)
        try:
            while not self._stop.is_set():
                began, spent = time.perf_counter(), time.thread_time()
                converted = self.pump.turn(began)
                if converted:
                    audio = converted / self.rate_out
                    self._busy.append((time.perf_counter() - began, audio))
                    urgency.turn(time.thread_time() - spent, audio)
                else:
                    self._bell.wait(NAP_S)
        except BaseException as error:  # `supervise` of the conversion raises it where it is seen
            self.failure = error

    def _measure(self, source: Stretch, output: list[Stretch]) -> None:
        """The pump's tap: a stretch of input and what came of it."""
        self._level_in = level(source.samples)
        for stretch in output:
            if len(stretch.samples):
                self._level_out = level(stretch.samples)
        self.meter(source.samples)
        self.recorder(source, output)
        for listener in list(self.listeners):
            listener(source.samples)
