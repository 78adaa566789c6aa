"""How much audio should wait at the player: as little as the jitter of late allows."""

from collections import deque
from statistics import median

LEAST_S, MOST_S = 0.001, 0.004
"""Bounds of the margin on a machine on which nothing came too late of late."""
STRAINED_S = 0.030
"""Upper bound of what is added where something did."""
STEP_S = 0.002
"""Added each time that the player runs dry."""
FORGOTTEN_S = 10.0
"""In so many seconds of calm, what one such time has added is taken back."""
REMEMBERED = 64
"""Windows over which jitter is taken: five seconds."""
NEAR = 5
"""Windows with which one is compared: where two clocks slide past each other, or the level is being
steered, those far apart differ for other reasons."""
WARMING = 25
"""Windows of the beginning, two seconds, in which a machine has other things to do: what comes too
late then says nothing about later."""


class Margin:
    """Steers the lowest level of a playback queue.

    Attributes:
        value: seconds that should be left, at the lowest of a window.
    """

    def __init__(self) -> None:
        self._lows: deque[float] = deque(maxlen=NEAR)
        self._dips: deque[float] = deque(maxlen=REMEMBERED)
        self._added, self._warming = 0.0, WARMING
        self.value = MOST_S

    def window(self, low: float, seconds: float) -> None:
        """After each window of so many seconds: the least that was left in it, in seconds.

        By how much one window goes below those before it is the jitter against which audio must
        wait; so much, and `LEAST_S`.
        """
        self._warming -= self._warming > 0
        self._lows.append(low)
        self._dips.append(max(0.0, median(self._lows) - low))
        self._added = max(0.0, self._added - STEP_S * seconds / FORGOTTEN_S)
        self.value = min(MOST_S, LEAST_S + max(self._dips)) + self._added

    def cut(self) -> None:
        """The queue was cut or began anew: levels before and after do not compare."""
        self._lows.clear()

    def dry(self) -> None:
        """The player had nothing to play: from now on more waits."""
        self._lows.clear()
        self._dips.append(MOST_S)
        if not self._warming:
            self._added = min(STRAINED_S, self._added + STEP_S)
        self.value = MOST_S + self._added
