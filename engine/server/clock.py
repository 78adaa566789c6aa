"""The client's clock beside the server's: when, by the server's, was a frame captured that says when by the client's."""

WINDOW_S = 5.0
"""Seconds of frames over which the quickest one is looked for; the window before it counts, too."""
OLDEST_S = 10.0
"""Seconds of age that a frame can have at most, whatever its timestamp says."""


class ClientClock:
    """The difference of two clocks that nobody set, from timestamps and arrivals alone.

    The quickest frame of the last windows is taken to have needed no time (Cristian's algorithm with the network's least delay
    as zero), so what a slow network adds later counts as age, and a client's clock that drifts is followed.
    """

    def __init__(self) -> None:
        self._least = self._before = float("inf")
        self._opened = float("-inf")

    @property
    def offset(self) -> float:
        """Seconds to add to the client's time to get the server's; 0 before the first frame."""
        least = min(self._least, self._before)
        return 0.0 if least == float("inf") else least

    def arrived(self, timestamp: float, duration: float, now: float) -> float:
        """When the first sample of a frame was captured, in seconds of the server's clock.

        Args:
            timestamp: the same, in seconds of the client's clock.
            duration: of the frame, in seconds: its last sample cannot be younger than the frame.
            now: when it arrived, in seconds of the server's clock.
        """
        if now - self._opened > WINDOW_S:
            self._before, self._least, self._opened = self._least, float("inf"), now
        self._least = min(self._least, now - timestamp - duration)
        return max(now - duration - OLDEST_S, min(now - duration, timestamp + self.offset))

    def back(self, captured: float) -> int:
        """Seconds of the server's clock -> microseconds of the client's, at least 0."""
        return max(0, round(1e6 * (captured - self.offset)))
