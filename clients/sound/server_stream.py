"""A stream of PulseAudio or PipeWire by its own protocol: what PortAudio's way through ALSA adds
falls away, and every buffer has the size that is asked for."""

import threading
import time

import numpy as np

from rtvc.audio.samples import Samples
from rtvc.clients.live.devices import Device
from rtvc.clients.sound.heartbeat import Callback, Heartbeat
from rtvc.clients.sound.libpulse import Connection
from rtvc.clients.sound.priority import DEVICE, realtime
from rtvc.errors import DependencyError, DeviceError

BUFFERED, ASKED = 3 / 2, 1 / 4
"""Blocks that wait at the server when it plays, and that it asks for at a time: PulseAudio then
gives half a block to the device. With less there the device works in blocks of a few samples, which
costs three times the processor."""
OPENING_S = 5.0
"""Seconds that a server may take to open a device."""
CLOSING_S = 1.0


class ServerStream(Heartbeat):
    """A stream of the sound server, with a thread of its own.

    Raises:
        DependencyError: the server's library is not installed.
        DeviceError: there is no server, or no such device.
    """

    def __init__(
        self, device: Device, callback: Callback, *, rate: int, block: int, incoming: bool
    ) -> None:
        super().__init__(callback, 1, rate, incoming)
        self.device, self.block = device.server, block
        self._stop, self._open = threading.Event(), threading.Event()
        self._refused: DeviceError | DependencyError | None = None
        name = "rtvc-microphone" if incoming else "rtvc-loudspeaker"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        if not self._open.wait(OPENING_S):
            self._stop.set()
            raise DeviceError(
                f"expected the sound server to open {device.key!r}, got no answer in"
                f" {OPENING_S:g} s: is it running?"
            )
        if self._refused is not None:
            raise self._refused

    def stop(self) -> None:
        """Ends it; never raises."""
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join(CLOSING_S)

    @property
    def alive(self) -> bool:
        """Whether its callback is still being called."""
        return self._thread.is_alive() and self.fresh

    def _run(self) -> None:
        realtime(DEVICE, inherited=True)  # the library has a thread, too
        try:
            connection = Connection(
                self.device,
                rate=self.rate,
                block=self.block,
                buffered=round(BUFFERED * self.block),
                asked=round(ASKED * self.block),
                incoming=self.incoming,
            )
        except (DeviceError, DependencyError) as refused:
            self._refused = refused
            self._open.set()
            return
        self.latency, self.called = connection.latency, time.perf_counter()
        self._open.set()
        try:
            (self._listen if self.incoming else self._speak)(connection)
        except DeviceError:
            pass  # `alive` says it
        finally:
            connection.close()

    def _listen(self, connection: Connection) -> None:
        samples: Samples = np.zeros((self.block, 1), np.float32)
        while not self._stop.is_set():
            connection.read(samples)
            self.beat(samples, connection.latency + self.block / self.rate, False)

    def _speak(self, connection: Connection) -> None:
        samples: Samples = np.zeros((self.block, 1), np.float32)
        longest = (1 + BUFFERED) * self.block / self.rate
        written = time.perf_counter()
        while not self._stop.is_set():
            late = time.perf_counter() - written > longest
            self.beat(samples, connection.latency, late)
            written = time.perf_counter()
            connection.write(samples)
