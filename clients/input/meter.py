"""What is wrong with a microphone's level, in words: nothing comes, too quiet, too loud."""

from collections import deque

import numpy as np

from rtvc.audio.samples import Samples

WINDOW_S = 0.05
"""Seconds over which one level is taken: about a syllable."""
HEARD_S = 5.0
"""Seconds by which is judged."""
FIRST_S = 3.0
"""Seconds before anything is said."""
NOTHING_DB = -75.0
"""A microphone that is connected has noise above this."""
QUIET_DB = -42.0
"""Speech below this is lost in the noise of most microphones, and to the speech gate."""
SPREAD_DB = 10.0
"""By so much do loud and quiet windows differ when somebody speaks."""
FULL = 0.99
"""Samples from here on are taken for cut off."""
CUT = 3
"""Windows with such samples, of those by which is judged, that are too many."""

NOTHING, QUIET, LOUD = "nothing comes", "too quiet", "too loud"


class InputMeter:
    """Listens to a microphone; `verdict` says what is wrong, or nothing.

    Args:
        rate: samples a second.
    """

    def __init__(self, rate: int) -> None:
        self._size = round(WINDOW_S * rate)
        count = round(HEARD_S / WINDOW_S)
        self._levels, self._peaks = deque[float](maxlen=count), deque[float](maxlen=count)
        self._power, self._peak, self._filled = 0.0, 0.0, 0

    def __call__(self, block: Samples) -> None:
        """Hears block (N,)."""
        while len(block):
            part = block[: self._size - self._filled]
            self._power += float(np.square(part, dtype=np.float64).sum())
            self._peak = max(self._peak, float(np.abs(part).max()))
            self._filled += len(part)
            block = block[len(part) :]
            if self._filled == self._size:
                self._levels.append(10 * float(np.log10(self._power / self._size + 1e-12)))
                self._peaks.append(self._peak)
                self._power, self._peak, self._filled = 0.0, 0.0, 0

    @property
    def verdict(self) -> str:
        """`nothing comes`, `too quiet`, `too loud`, or nothing while all is well or nobody
        speaks."""
        levels, peaks = list(self._levels), list(self._peaks)
        if len(levels) < FIRST_S / WINDOW_S:
            return ""
        if sum(peak >= FULL for peak in peaks) >= CUT:
            return LOUD
        low, high = np.percentile(levels, [20, 95])
        if max(levels) < NOTHING_DB:
            return NOTHING
        return QUIET if high < QUIET_DB and high - low > SPREAD_DB else ""
