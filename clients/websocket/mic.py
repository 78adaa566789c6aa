"""The microphone through a server: the devices of `rtvc live`, a remote session in place of a
model."""

import functools
import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np

from rtvc.audio.samples import Samples
from rtvc.clients.live.audio_streams import stream_type
from rtvc.clients.live.config import LiveConfig
from rtvc.clients.live.devices import own_rate, pick
from rtvc.clients.live.duplex_audio import DuplexAudio
from rtvc.clients.live.open_devices import Devices, Opener
from rtvc.clients.live.status import Status
from rtvc.clients.recording.remote_placing import RemotePlacing
from rtvc.clients.websocket.remote import Remote
from rtvc.engine.callback.duplex import Front, Outlet
from rtvc.engine.callback.placing import Stretch
from rtvc.engine.protocol.fields import RATES
from rtvc.engine.protocol.streams import Audio
from rtvc.errors import ServiceError

WAITING = 200
"""Blocks of the microphone that may wait for the network; more are left out."""
WINDOW_S = 0.2
"""Over this stretch the least audio that waits at the player is taken: networks are less even than
sound cards."""
MARGIN_S = 0.010
"""What waits at the player where nothing else is asked for."""
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
        self._outlet = functools.partial(
            Outlet, rate_out, margin=margin, window=WINDOW_S, correct_drift=True
        )
        self.outlet = self._outlet()
        self.monitor: Outlet | None = None
        self.muted = False
        self.tap: Callable[[Stretch, list[Stretch]], None] | None = None
        self.front: Front | None = None
        self.overflow = 0
        self._blocks: queue.Queue[tuple[Samples, float]] = queue.Queue(WAITING)
        self._converted: deque[Audio] = deque(maxlen=WAITING)
        self._placing = RemotePlacing(rate_in, rate_out)
        self.receiving = remote.spawn(self._receive())

    @property
    def dropped(self) -> float:
        """Seconds of audio that were left out on this side: the network was full, or the player
        had too much."""
        playout = self.outlet.playout
        return (
            self.overflow / self.rate_in
            + (playout.dropped + playout.rejected) / self.rate_out
            + self.remote.client.dropped
        )

    def capture(self, block: Samples, at: float, arrived: float | None = None) -> None:
        """The input callback's: block (N,), whose first sample was captured at time `at`, in
        seconds."""
        try:
            self._blocks.put_nowait((block.copy(), at))
        except queue.Full:
            self.overflow += len(block)

    def play(self, out: Samples, at: float) -> None:
        """The output callback's: fills out (N,), to sound from time `at`, in seconds."""
        self.outlet.playout.read(out, at)

    def turn(self, now: float) -> int:
        """The worker's: sends what was captured; returns the samples sent."""
        blocks = list[Samples]()
        while not self._blocks.empty():
            block, at = self._blocks.get_nowait()
            front, sent, late = self.front, block, 0.0
            if front is not None:
                sent = front(block)
                late = front.late
            taken = self.remote.offer(sent, at - late)
            self._placing.offered(len(block), taken, late)
            blocks.append(block)
        if blocks:
            source = self._placing.input(np.concatenate(blocks))
            arrived = [self._converted.popleft() for _ in range(len(self._converted))]
            stretches = [stretch for audio in arrived for stretch in self._placing.output(audio)]
            if self.tap is not None:
                self.tap(source, stretches)
        return sum(len(block) for block in blocks)

    def listen(self, on: bool) -> None:
        """Whether a second listener is fed."""
        self.monitor = self._outlet() if on else None

    async def _receive(self) -> None:
        """Runs beside the connection: what comes is queued for the player."""
        async for audio in self.remote.client.audio():
            samples = np.zeros_like(audio.samples) if self.muted else audio.samples
            if len(samples):
                self._converted.append(audio)
                captured, now = audio.timestamp / 1e6, time.perf_counter()
                self.outlet.deliver(samples, captured, now)
                monitor = self.monitor
                if monitor is not None:
                    monitor.deliver(samples, captured, now)


class RemoteLive:
    """A session on a server between a microphone and a loudspeaker: what `Live` is here; use it as
    a context manager.

    Args:
        remote: connected, without a session.
        voices: that can be chosen; the first one speaks at once.
        config: devices, sizes and switches.
        streams: opens a stream, see `Live`.
        settings: of the session, see `Remote.start`.
    """

    def __init__(
        self,
        remote: Remote,
        voices: Sequence[Any],
        config: LiveConfig,
        *,
        streams: Opener | None = None,
        **settings: Any,
    ) -> None:
        self.remote, self.voices, self.config = remote, list(voices), config
        streams = streams or stream_type(config.sound)
        source, sink = pick(config.input, "input"), pick(config.output, "output")
        rate_in = usable(config.input_rate or own_rate(source, "input"))
        rate_out = usable(config.output_rate or own_rate(sink, "output"))
        remote.start(
            self.voices[0],
            pitch=config.pitch,
            sample_rate=rate_in,
            output_rate=rate_out,
            block=round(config.block_ms / 1000 * rate_in),
            **settings,
        )
        self.wet, self.pitch = 1.0, config.pitch
        margin = MARGIN_S if config.margin_ms is None else config.margin_ms / 1000
        self.pump = RemotePump(remote, rate_in, rate_out, margin)
        self.audio = DuplexAudio(self.pump, config, rate_in, rate_out, streams)
        self._asked = 0.0
        self._server_dropped = self._server_load = 0.0

    def __enter__(self) -> Self:
        self.audio.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.audio.stop()
        self.pump.receiving.cancel()

    @property
    def devices(self) -> Devices:
        """The open sound cards."""
        return self.audio.devices

    def supervise(self) -> None:
        """Call it a few times a second: notices a lost device and takes it back, and raises what
        ended the session.

        Raises:
            ServiceError: the server refused or is gone for good.
        """
        problem = self.remote.client.problem or self.audio.failure
        if problem is not None:
            raise problem
        self.devices.supervise()
        if time.monotonic() - self._asked > STATS_S:
            self._asked = time.monotonic()
            self.remote.spawn(self._ask_stats())

    async def _ask_stats(self) -> None:
        try:
            stats = await self.remote.client.stats()
        except ServiceError:
            return  # `supervise` finds out
        self._server_dropped, self._server_load = stats.dropped_ms / 1000, stats.load

    def status(self) -> Status:
        """How it is doing; `rtf` is the server's load."""
        status = self.audio.status(
            latency=self.remote.latency,
            dropped=self.pump.dropped + self._server_dropped,
            rtf=self._server_load,
            bypass=self.wet == 0.0,
            pitch=self.pitch,
        )
        return replace(status, resumed=self.remote.client.link.resumed)
