"""The way from one audio callback to the other: capture ring, session, drift correction, playout.
No device in sight.

`capture` and `play` are what the callbacks call: they copy samples and return. `turn` is the
worker's, and the only place where the model runs. Time is always passed in, so that the same code
runs live, in a simulation and in tests.
"""

import functools
from collections.abc import Callable
from typing import Protocol

import numpy as np

from rtvc.audio.samples import Samples
from rtvc.engine.callback.drift import HALF, DriftControl, DriftResampler
from rtvc.engine.callback.placing import Placing, Stretch
from rtvc.engine.callback.playout import Playout
from rtvc.engine.callback.ring import Ring
from rtvc.engine.streams.session import Session

DELAYS = 128
"""Blocks over which the least delay of the input device is taken."""
CAPTURE_S = 8.0
"""Seconds of input that the capture ring holds while the worker is away."""


class Front(Protocol):
    """What is done to the microphone before it is converted.

    Attributes:
        late: seconds by which what it returns is older than what it was given last.
    """

    @property
    def late(self) -> float:
        """See the class."""
        ...

    def __call__(self, block: Samples) -> Samples:
        """A block (N,) -> as many samples."""
        ...


class Outlet:
    """One listener: a playout and the correction of its clock against the microphone's."""

    def __init__(
        self, rate: int, *, margin: float | None, window: float, correct_drift: bool
    ) -> None:
        self.rate, self.playout = rate, Playout(rate, margin=margin, window=window)
        self.drift = DriftResampler() if correct_drift else None
        self.control = DriftControl(self.playout.margin / rate)
        self._turned = 0.0

    def deliver(self, block: Samples, captured: float, now: float) -> None:
        """Queues output for playback, stretched by the clocks' difference."""
        if self.drift is not None:
            self.control.target = self.playout.margin / self.rate
            correction = self.control.update(self.playout.level, min(1.0, now - self._turned))
            block = self.drift.push(block, correction).clip(
                -1, 1
            )  # it swings a little beyond what came
            captured -= HALF / self.rate
        self._turned = now
        self.playout.write(block, captured)


class Pump:
    """One live conversion.

    Args:
        session: what converts; give it a `Backlog` with a limit, or its input is never cut.
        margin: seconds of output that should wait at the player; None adapts it to the jitter.
        correct_drift: resample the output by what the two clocks differ.
        monitor: feed a second listener, with a clock of its own.

    `tap`, if set, hears every stretch of input and the output that came of it, in the worker.
    `front`, if set, is given every block (N,) of the input and returns as many samples, `late`
    seconds of them older: what is done to a microphone before anybody is converted.
    """

    def __init__(
        self,
        session: Session,
        *,
        margin: float | None = 0.010,
        correct_drift: bool = True,
        monitor: bool = False,
    ) -> None:
        chunker = session.chunker
        self.session = session
        self.rate_in, self.rate_out = chunker.entry.rate_in, chunker.exit.rate_out
        self.captured, self.marks = Ring(int(CAPTURE_S * self.rate_in)), Ring(16_384, np.float64)
        window = max(0.080, 2.5 * chunker.chunk / chunker.rate)
        self._outlet = functools.partial(
            Outlet, self.rate_out, margin=margin, window=window, correct_drift=correct_drift
        )
        self.outlet = self._outlet()
        self.monitor: Outlet | None = None
        self.listen(monitor)
        self.playout = self.outlet.playout
        self.overflow = self.repaired = 0
        self.muted = False
        self.tap: Callable[[Stretch, list[Stretch]], None] | None = None
        self.front: Front | None = None
        self.device_delay = 0.0
        self._delays, self._blocks_seen = np.full(DELAYS, np.inf), 0
        self._gain = 1.0
        self._placing = Placing()
        self._mark = np.zeros(2)
        self._ahead: list[
            tuple[int, float]
        ] = []  # (stream position, capture time) of blocks that were not all there yet
        self._following = 0.0  # capture time of the next sample if no mark says otherwise

    def listen(self, on: bool) -> None:
        """Whether a second listener is fed; one that begins hears what comes from now on."""
        self.monitor = self._outlet() if on else None

    def capture(self, block: Samples, at: float, arrived: float | None = None) -> None:
        """The input callback's: block (N,) float32 at rate_in, whose first sample was captured at
        time `at`, in seconds.

        `arrived` is when the sound system handed it over: what it holds back itself, at the least,
        no dropping can win back, so that much age is not held against the audio.
        """
        if arrived is not None:
            self._delays[self._blocks_seen % len(self._delays)] = max(
                0.0, arrived - at - len(block) / self.rate_in
            )
            self._blocks_seen += 1
            self.device_delay = float(self._delays.min())
        self._mark[0], self._mark[1] = self.captured.written, at
        self.marks.write(self._mark)
        self.overflow += len(block) - self.captured.write(block)

    def play(self, out: Samples, at: float) -> None:
        """The output callback's: fills out (N,) at rate_out, to sound from time `at`, in
        seconds."""
        self.playout.read(out, at)

    def turn(self, now: float) -> int:
        """The worker's: converts what was captured and queues it for playback; returns the samples
        converted."""
        block, captured = self.process(now)
        self.deliver(block, captured, now)
        return len(block)

    def process(self, now: float) -> tuple[Samples, float]:
        """Converts what was captured; returns output (N,) at rate_out and when its first sample was
        captured."""
        parts, given, blocks = list[Samples](), list[Samples](), self._blocks()
        chunker, front, late = self.session.chunker, self.front, 0.0
        for block, at in blocks:
            block = self._usable(block)
            given.append(block)
            if front is not None:
                block = front(block)
                late = front.late
            parts.append(self.session.push(block, captured=at - late, now=now - self.device_delay))
        y = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        if blocks:
            self._placing.late = late
            source = self._placing.input(chunker, np.concatenate(given))
            outputs = self._placing.output(chunker, y)
            if self.tap is not None:
                self.tap(source, outputs)
        return y, chunker.captured - len(y) / self.rate_out

    def _usable(self, block: Samples) -> Samples:
        """A block as a device gave it, within [-1, 1]: what a driver does must not end the
        conversion. Repairs are counted."""
        if np.abs(block).max(initial=0.0) <= 1:  # not so for NaN
            return block
        self.repaired += int(np.count_nonzero(~(np.abs(block) <= 1)))
        return np.clip(np.nan_to_num(block, nan=0.0), -1, 1)

    def deliver(self, block: Samples, captured: float, now: float) -> None:
        """Queues output for every listener."""
        if not len(block):
            return
        gain = float(not self.muted)
        if gain != 1.0 or self._gain != 1.0:
            block = block * np.linspace(self._gain, gain, len(block), dtype=np.float32)
            self._gain = gain
        self.outlet.deliver(block, captured, now)
        monitor = self.monitor  # which another thread may take away
        if monitor is not None:
            monitor.deliver(block, captured, now)

    @property
    def dropped(self) -> int:
        """Samples dropped on purpose so far, at rate_out: stale input, stale output, and what no
        queue could hold."""
        chunker, share_in = self.session.chunker, self.rate_out / self.rate_in
        stale = chunker.backlog.dropped * self.rate_out / chunker.rate
        return (
            round(stale + self.overflow * share_in) + self.playout.dropped + self.playout.rejected
        )

    def _blocks(self) -> list[tuple[Samples, float]]:
        """What the capture ring holds, block by block with capture times."""
        count = len(self.captured)
        if not count:
            return []
        start, data, pair = self.captured.consumed, np.empty(count, np.float32), np.zeros(2)
        self.captured.read(data)
        # A mark is (number of a block's first sample, when that was captured). The callback writes
        # samples and marks to two rings and cannot do both at once: a mark may be here before its
        # samples, and then waits in `_ahead` for a later call.
        while self.marks.read(pair) == 2:
            self._ahead.append((int(pair[0]), float(pair[1])))
        starts = [(max(0, at - start), when) for at, when in self._ahead if at < start + count]
        self._ahead = [(at, when) for at, when in self._ahead if at >= start + count]
        # ... and samples may be here before their mark, as may the rest of a block of which an
        # earlier call took the beginning: they follow what was read last without a gap.
        if not starts or starts[0][0] > 0:
            starts.insert(0, (0, self._following))
        edges = [at for at, _ in starts[1:]] + [count]
        self._following = starts[-1][1] + (count - starts[-1][0]) / self.rate_in
        return [(data[a:b], when) for (a, when), b in zip(starts, edges, strict=True) if b > a]
