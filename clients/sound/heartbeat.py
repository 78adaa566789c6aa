"""What every kind of stream of a sound card shares: the heartbeat, the counts, and the way from
channels to mono and back."""

import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

import numpy as np

from rtvc.audio.samples import Samples
from rtvc.clients.sound.priority import DEVICE, realtime

Callback = Callable[[Samples, float], None]

SILENT_S = 3.0
"""A stream whose callback has not been called for this long has lost its device."""
BELIEVABLE_S = 1.0
"""Device delays above this, or below zero, are not believed."""
REMEMBERED = 400
"""Blocks over which the delay of a device is taken."""


class Stream(Protocol):
    """One direction of one device.

    Attributes:
        xruns: blocks that came too late or found no room.
        latency: seconds that the device said it would add when it was opened.
    """

    xruns: int
    latency: float

    def stop(self) -> None:
        """Ends it; never raises."""
        ...

    @property
    def alive(self) -> bool:
        """Whether its callback is still being called."""
        ...

    @property
    def held(self) -> float:
        """Seconds that the device holds audio, a block's own length left out, as it says itself:
        the median of late."""
        ...


class Heartbeat:
    """Counts and measures what a sound card asks for, and calls back with mono.

    Args:
        callback: takes or fills a block (N,), with the time of its first sample.
        channels: of the device.
        rate: of the samples, in Hz.
        incoming: a microphone rather than a loudspeaker.
    """

    def __init__(self, callback: Callback, channels: int, rate: int, incoming: bool) -> None:
        self.callback, self.channels, self.rate, self.incoming = callback, channels, rate, incoming
        self.xruns, self.latency, self.called = 0, 0.0, time.perf_counter()
        self.mono: Samples = np.zeros(16_384, np.float32)
        self._held = deque[float](maxlen=REMEMBERED)
        self._hurried = False

    def beat(self, data: Samples, delay: float, failed: bool) -> None:
        """One callback: data (N, channels); `delay` from now to when its first sample was (or will
        be) at the converter, in seconds."""
        now = time.perf_counter()
        self.called = now
        self.xruns += failed
        mono = self.mono[: len(data)]
        if self.incoming:
            block = len(data) / self.rate
            delay = delay if 0 < delay < BELIEVABLE_S else block
            self._held.append(max(0.0, delay - block))
            if self.channels == 1:
                mono[:] = data[:, 0]
            else:
                np.mean(data, axis=1, out=mono)
            self.callback(mono, now - delay)
            return
        delay = delay if 0 < delay < BELIEVABLE_S else 0.0
        self._held.append(delay)
        self.callback(mono, now + delay)
        data[:] = mono[:, None]

    def hurry(self) -> None:
        """Asks for real time for the thread of a callback that another library started."""
        if not self._hurried:
            self._hurried = True
            realtime(DEVICE)

    @property
    def fresh(self) -> bool:
        """Whether the callback was called lately."""
        return time.perf_counter() - self.called < SILENT_S

    @property
    def held(self) -> float:
        """See `Stream`."""
        known = list(self._held)
        return float(np.median(known)) if known else 0.0
