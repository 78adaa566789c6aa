"""A slow automatic gain: brings a microphone's speech to one level and leaves its dynamics alone.

The level is taken in windows in which somebody speaks, that is, well above the noise of the room; a
gain that followed every window would pump noise up in every pause. What it does does not depend on
how the input is cut into blocks.
"""

import numpy as np

from rtvc.audio.samples import Samples

WINDOW_S = 0.05
"""Seconds of a window: one gain each, reached along a straight line."""
TARGET_DB = -24.0
"""RMS of speech that is aimed at, in dB below full scale: what the models were trained around."""
LEAST_DB, MOST_DB = -12.0, 24.0
"""The range of the gain."""
UP_DB, DOWN_DB = 2.0, 8.0
"""dB a second by which the gain rises and falls at most."""
SPEECH_DB = 12.0
"""Windows that are so far above the noise hold speech."""
SILENT_DB = -65.0
"""Windows below this never do."""
MEMORY_S = 3.0
"""Seconds of speech over which the level is averaged."""
RISE_DB = 1.0
"""dB a second by which the noise is thought to rise when it does; it falls at once."""
PEAK = 0.98
"""No sample leaves above this: the gain gives way at once."""


class SlowGain:
    """`gain(block)` is the block at the level wanted.

    Args:
        rate: samples a second.

    Attributes:
        db: the present gain.
        late: seconds by which what leaves is older than what came: none.
    """

    late = 0.0

    def __init__(self, rate: int) -> None:
        self._size, self.db = round(WINDOW_S * rate), 0.0
        self._from = 1.0  # the gain at the beginning of the window
        self._level: float | None = None
        self._noise = 0.0
        self._power, self._filled = 0.0, 0

    def __call__(self, block: Samples) -> Samples:
        """Block (N,) float32 in [-1, 1] -> the same, louder or quieter."""
        parts = list[Samples]()
        while len(block):
            part = block[: self._size - self._filled]
            block = block[len(part) :]
            parts.append(self._apply(part))
            self._power += float(np.square(part, dtype=np.float64).sum())
            self._filled += len(part)
            if self._filled == self._size:
                self._follow(10 * float(np.log10(self._power / self._size + 1e-12)))
                self._power, self._filled = 0.0, 0
        return np.concatenate([np.zeros(0, np.float32), *parts])

    def _apply(self, part: Samples) -> Samples:
        goal = 10 ** (self.db / 20)
        at = (self._filled + 1 + np.arange(len(part), dtype=np.float32)) / self._size
        gains = self._from + (goal - self._from) * at
        return np.clip(part * gains, -PEAK, PEAK).astype(np.float32)

    def _follow(self, level: float) -> None:
        """A window is over: what its level means for the gain of the next one."""
        self._from = 10 ** (self.db / 20)
        self._noise = min(level, self._noise + RISE_DB * WINDOW_S)
        if level < SILENT_DB or level < self._noise + SPEECH_DB:
            return
        share = WINDOW_S / MEMORY_S
        before = level if self._level is None else self._level
        self._level = before + share * (level - before)
        target = min(MOST_DB, max(LEAST_DB, TARGET_DB - self._level))
        self.db += min(UP_DB * WINDOW_S, max(-DOWN_DB * WINDOW_S, target - self.db))
