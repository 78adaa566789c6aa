"""The listener's end: plays what the worker wrote, never blocks, fades instead of clicking, and
keeps the wait short.

Whatever happened before, the queue's lowest level of the last window is brought back to `margin`:
too little is an underrun (silence, counted, then a wait for the margin to fill again), too much is
stale audio (dropped with a cross-fade, counted).
"""

import numpy as np
from numpy.typing import NDArray

from rtvc.audio.samples import Samples
from rtvc.engine.callback.margin import Margin
from rtvc.engine.callback.ring import Ring
from rtvc.engine.streams.backlog import FADE_S, splice
from rtvc.errors import EngineError

WINDOW_S = 0.080
"""Over this stretch the lowest level is taken: longer than a chunk, shorter than half of the
promised 200 ms."""
SLACK_S = 0.012
"""How far above a margin that is given the level may stay before audio is dropped: more than a
block of a sound card (as two clocks slide past each other the lowest level jumps by one), and the
range in which drift control works."""
TIGHT_S, SETTLED_S = 0.002, 0.001
"""The same with a margin that adapts, beyond one block; and right after the beginning, when the
level is what it happens to be."""
STALE_S = 0.5
"""What is older than this when it would sound is dropped whole: the machine slept."""
HISTORY = 8192
"""Lag measurements kept for percentiles."""


class Playout:
    """The consumer's side of a ring of output samples.

    Args:
        rate: samples a second.
        margin: seconds of audio that should be left after every read: what protects from jitter;
            None adapts it to the jitter.
        capacity: seconds that the ring holds.
        window: seconds over which the lowest level is taken.
    """

    def __init__(
        self, rate: int, *, margin: float | None, capacity: float = 4.0, window: float = WINDOW_S
    ) -> None:
        self.adapted = Margin() if margin is None else None
        margin = self.adapted.value if self.adapted else margin or 0.0
        if margin + window > capacity / 2:
            raise EngineError(
                f"a margin of {margin} s and a window of {window} s do not fit a queue of"
                f" {capacity} s"
            )
        self.rate, self.margin, self.window = rate, int(margin * rate), int(window * rate)
        self.ring, self.marks = Ring(int(capacity * rate)), Ring(4096, np.float64)
        self.slack, fade = int(SLACK_S * rate), max(1, int(FADE_S * rate))
        self.rise: Samples = ((np.arange(fade) + 1) / (fade + 1)).astype(np.float32)
        self._stale: Samples = np.zeros(fade, np.float32)
        self._mark, self._next = np.zeros(2), np.zeros(2)
        self._pending = False  # whether _next holds a mark that is not due yet
        self._lags, self.sounded = np.zeros(HISTORY), 0
        self._waiting, self._last, self.asked = True, 0.0, False
        self._lowest, self._seen = len(self.ring.data), 0
        self._settling = False  # whether this is the first window since the beginning
        self.level = margin  # seconds left after reads, at the lowest, in the last full window
        self.underruns = self.dropped = self.drops = self.rejected = 0

    def write(self, block: Samples, captured: float) -> None:
        """The worker's: queues block (N,), whose first sample was captured at `captured`, in
        seconds."""
        if not len(block) or not self.asked:
            # Nobody listens yet: what is said before the sound card starts is not kept for it
            return
        self.marks.write(np.array([self.ring.written, captured]))
        self.rejected += len(block) - self.ring.write(block)

    def read(self, out: Samples, at: float) -> None:
        """The callback's: fills out (N,), which will sound from time `at`, in seconds."""
        self.asked = True
        if not self._waiting and self._age(at) > STALE_S:
            stale = self.ring.skip(len(self.ring))
            self.dropped += stale
            self.drops += stale > 0
            self._waiting = True
        # Silence until a block and the margin are there: a level that begins below the margin would
        # run dry at the first jitter.
        fill, fade = len(self.ring), len(self.rise)
        if self._waiting and fill < len(out) + self.margin:
            self._silence(out)
            return
        rises, self._waiting = self._waiting, False
        if rises:
            self._lowest, self._seen, self._settling = len(self.ring.data), 0, True
        # Too much waits: it is dropped here and not played faster, and what would have been heard
        # next fades into what comes after the gap, so that the cut makes no click.
        excess = self._excess(fill - len(out), len(out))
        fade = min(fade, len(out))
        passed = self._stale[:fade]
        if excess:
            self.ring.peek(passed)
            self.ring.skip(excess)
            self.dropped += excess
            self.drops += 1
        self._lags[self.sounded % HISTORY] = self._age(at)
        self.sounded += 1
        got = self.ring.read(out)
        if excess and got >= fade:
            splice(passed, out[:fade])
        if rises:
            length = min(fade, got)
            out[:length] *= self.rise[:length]
        # Run dry: what there is fades out at its end, and the next calls wait until the margin is
        # there again. One that adapts has shown to be too small, and grows.
        if got < len(out):
            self.underruns += 1
            self._waiting = True
            if self.adapted:
                self.adapted.dry()
                self.margin = int(self.adapted.value * self.rate)
            length = min(fade, got)
            out[got - length : got] *= self.rise[:length][::-1]
            out[got:] = 0
            self._last = 0.0
        elif len(out):
            self._last = float(out[-1])

    def lags(self) -> NDArray[np.float64]:
        """The latest capture-to-playback times, in seconds, in no order."""
        return self._lags[: min(self.sounded, HISTORY)]

    @property
    def lag(self) -> float:
        """The capture-to-playback time of the last block that sounded, in seconds."""
        return float(self._lags[(self.sounded - 1) % HISTORY]) if self.sounded else 0.0

    def _silence(self, out: Samples) -> None:
        """Nothing to play: from the last sample to zero without a step."""
        out[:] = 0
        length = min(len(self.rise), len(out))
        out[:length] = self._last * self.rise[:length][::-1]
        self._last = 0.0

    def _excess(self, left: int, played: int) -> int:
        """Samples to drop: what the lowest level of the last window is above the margin, when that
        is more than the slack."""
        self._lowest = min(self._lowest, left)
        self._seen += played
        if self._seen < self.window:
            return 0
        lowest, seen = self._lowest, self._seen / self.rate
        self._lowest, self._seen = len(self.ring.data), 0
        self.level = lowest / self.rate
        slack, settling, self._settling = self.slack, self._settling, False
        if self.adapted:
            self.adapted.window(self.level, seen)
            self.margin = int(self.adapted.value * self.rate)
            slack = int(SETTLED_S * self.rate) if settling else played + int(TIGHT_S * self.rate)
        if lowest <= self.margin + slack:
            return 0
        if self.adapted:
            self.adapted.cut()
        return lowest - self.margin

    def _age(self, at: float) -> float:
        """How old the next sample is when it sounds at time `at`, in seconds; marks hold (position
        in the ring, capture time)."""
        start = self.ring.consumed
        while self._pending or self.marks.read(self._next) == 2:
            self._pending = bool(self._next[0] > start)
            if self._pending:
                break
            self._mark[:] = self._next
        return float(at - (self._mark[1] + (start - self._mark[0]) / self.rate))
