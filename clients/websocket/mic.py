"""The microphone through a server: the devices of `rtvc live`, a remote session in place of a
model."""

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtvc.checks import PITCH
from rtvc.clients.live.audio_streams import STREAMS
from rtvc.clients.live.devices import pick
from rtvc.clients.live.live import Live, LiveConfig, Recorder
from rtvc.clients.websocket.remote import Remote
from rtvc.engine.callback.duplex import Outlet
from rtvc.engine.protocol.messages import RATES
from rtvc.errors import ServiceError

Samples = NDArray[np.float32]

WAITING = 200
"""Blocks of the microphone that may wait for the network; more are left out."""
WINDOW_S = 0.2
"""Over this stretch the least audio that waits at the player is taken: networks are less even than
sound cards."""
STATS_S = 1.0
"""How often the server is asked how it is doing."""


def usable(rate: int) -> int:
    """A rate in Hz that both the sound card and the protocol know."""
    return rate if rate in RATES else 48_000


class RemotePump:
    """What stands in for `rtvc.engine.callback.duplex.Pump`: blocks go to the server, and what
    comes back goes to the player."""

    def __init__(self, remote: Remote, rate_in: int, rate_out: int, margin: float) -> None:
        self.remote, self.rate_in, self.rate_out = remote, rate_in, rate_out
        self.outlet, self.monitor = (
            Outlet(rate_out, margin=margin, window=WINDOW_S, correct_drift=True),
            None,
        )
        self.playout, self.play = self.outlet.playout, self.outlet.playout.read
        self.muted = False
        self.tap: Callable[[Samples, Samples], None] | None = None
        self.overflow = 0
        self._blocks: queue.Queue[tuple[Samples, float]] = queue.Queue(WAITING)
        self._heard: deque[Samples] = deque(maxlen=WAITING)
        self.receiving = remote.spawn(self._receive())

    def capture(self, block: Samples, at: float, arrived: float | None = None) -> None:
        """The input callback's: block (N,), whose first sample was captured at time `at`, in
        seconds."""
        try:
            self._blocks.put_nowait((block.copy(), at))
        except queue.Full:
            self.overflow += len(block)

    def turn(self, now: float) -> int:
        """The worker's: sends what was captured; returns the samples sent."""
        said = list[Samples]()
        while not self._blocks.empty():
            block, at = self._blocks.get_nowait()
            self.remote.offer(block, at)
            said.append(block)
        if said and self.tap is not None:
            heard = [self._heard.popleft() for _ in range(len(self._heard))]
            self.tap(np.concatenate(said), np.concatenate([np.zeros(0, np.float32), *heard]))
        return sum(len(block) for block in said)

    async def _receive(self) -> None:
        """Runs beside the connection: what comes is queued for the player."""
        async for audio in self.remote.client.audio():
            samples = np.zeros_like(audio.samples) if self.muted else audio.samples
            if len(samples):
                self._heard.append(samples)
                self.outlet.deliver(samples, audio.timestamp / 1e6, time.perf_counter())


class RemoteLive(Live):
    """A microphone, a server, a loudspeaker; use it as a context manager.

    Args:
        remote: connected, without a session.
        voices: what the keys 1 to 9 choose; the first one speaks at once.
        config: devices, sizes and switches.
        streams: as of `Live`.
        settings: of the session, as of `Remote.start`.
    """

    def __init__(
        self,
        remote: Remote,
        voices: Sequence[Any],
        config: LiveConfig,
        *,
        streams: Any = None,
        **settings: Any,
    ) -> None:
        self.remote, self.voices, self.config = remote, list(voices), config
        self.open = STREAMS[config.sound] if streams is None else streams
        source, sink = pick(config.input, "input"), pick(config.output, "output")
        self.rate_in, self.rate_out = (
            usable(config.input_rate or source.rate),
            usable(config.output_rate or sink.rate),
        )
        block = round(config.block_ms / 1000 * self.rate_in)
        rates = {"sample_rate": self.rate_in, "output_rate": self.rate_out, "block": block}
        remote.start(self.voices[0], pitch=config.pitch, **rates, **settings)
        self.wet, self.pitch = 1.0, config.pitch
        self.pump: Any = RemotePump(remote, self.rate_in, self.rate_out, config.margin_ms / 1000)
        self.recorder = (
            Recorder(config.record, self.rate_in, self.rate_out) if config.record else None
        )
        self.streams, self.levels, self.busy = [], [-120.0, -120.0], deque(maxlen=1)
        self.state, self.losses, self.problem = "starting", 0, ""
        self._xruns, self._tried, self._asked, self.hurried = 0, 0.0, 0.0, False
        self._server: dict[str, float] = {"dropped_ms": 0.0, "load": 0.0}
        self._stop = threading.Event()
        self._worker = threading.Thread(target=self._guarded, name="rtvc-worker", daemon=True)

    def warm(self) -> None:
        """Nothing runs here that would need it."""

    def __enter__(self) -> "RemoteLive":
        super().__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self.pump.receiving.cancel()

    def supervise(self) -> None:
        """Call it a few times a second: notices a lost device and takes it back, and raises what
        ended the session.

        Raises:
            ServiceError: the server refused or is gone for good.
        """
        problem = self.remote.client.problem
        if problem is not None:
            raise problem
        super().supervise()
        if self.state == "running" and time.monotonic() - self._asked > STATS_S:
            self._asked = time.monotonic()
            self.remote.spawn(self._ask())

    async def _ask(self) -> None:
        try:
            found = await self.remote.client.stats()
        except ServiceError:
            return  # `supervise` finds out
        self._server = {"dropped_ms": found.dropped_ms, "load": found.load}

    def press(self, key: str) -> bool:
        """Carries out a key's action; returns whether to go on."""
        if key == "b":
            self.wet = 0.0 if self.wet else 1.0
            self.remote.update(wet=self.wet)
        elif key == "m":
            self.pump.muted = not self.pump.muted
        elif key in ("+", "-"):
            self.pitch = max(PITCH[0], min(PITCH[1], self.pitch + (1.0 if key == "+" else -1.0)))
            self.remote.update(pitch=self.pitch)
        elif key.isdigit() and 0 < int(key) <= len(self.voices):
            self.remote.update(voice=self.voices[int(key) - 1])
        return key != "q"

    def status(self) -> dict[str, Any]:
        """As `Live.status`; `rtf` is the server's load."""
        playout = self.pump.playout
        lags = playout.lags() * 1000
        p50, p95, p99 = np.percentile(lags, [50, 95, 99]).tolist() if len(lags) else (0.0, 0.0, 0.0)
        left_out = (
            1000 * (playout.dropped + playout.rejected) / self.rate_out
            + 1000 * self.pump.overflow / self.rate_in
        )
        dropped = left_out + 1000 * self.remote.client.dropped + self._server["dropped_ms"]
        return {
            "state": self.state,
            "problem": self.problem,
            "level_in_db": round(self.levels[0], 1),
            "level_out_db": round(self.levels[1], 1),
            "lag_ms": round(playout.lag * 1000, 1),
            "lag_p50_ms": round(p50, 1),
            "lag_p95_ms": round(p95, 1),
            "lag_p99_ms": round(p99, 1),
            "expected_ms": round(
                1000 * self.remote.latency + self.config.block_ms + self.config.margin_ms, 1
            ),
            "xruns": self._xruns + sum(stream.xruns for stream in self.streams),
            "underruns": playout.underruns,
            "dropped_ms": round(dropped, 1),
            "rtf": round(self._server["load"], 3),
            "resumed": self.remote.client.link.resumed,
            "bypass": self.wet == 0.0,
            "muted": self.pump.muted,
            "pitch": self.pitch,
        }

    def _guarded(self) -> None:
        """The worker; what ends the session ends it quietly, for `supervise` tells."""
        try:
            self._work()
        except (ServiceError, asyncio.CancelledError):
            self._stop.set()
