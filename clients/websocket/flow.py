"""How much audio is under way to the server and back: what bounds every queue of a client."""

from collections import deque

PATIENCE_S = 30.0
"""A sender that waits this long for room, while nobody takes the converted audio, is told so."""


class Window:
    """Input that has been sent and whose output has not been taken yet.

    Input leaves the window when output captured at the same time or later is taken, so audio that the server drops leaves it too.

    Args:
        seconds: of audio that may be under way.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.under_way = 0.0  # seconds
        self._frames: deque[tuple[int, float]] = deque()  # (capture time of the frame's end in microseconds, its duration in seconds)

    @property
    def full(self) -> bool:
        """Whether more input has to wait, or to be dropped."""
        return self.under_way >= self.seconds

    def sent(self, timestamp: int, duration: float) -> None:
        """A frame that began at `timestamp` microseconds and lasts `duration` seconds has been sent."""
        self._frames.append((timestamp + round(1e6 * duration), duration))
        self.under_way += duration

    def taken(self, timestamp: int, duration: float) -> None:
        """Output was taken whose input began at `timestamp` microseconds and lasted `duration` seconds."""
        end = timestamp + round(1e6 * duration)
        while self._frames and self._frames[0][0] <= end:
            self.under_way -= self._frames.popleft()[1]
        if not self._frames:
            self.under_way = 0.0

    def clear(self) -> None:
        """Nothing is under way."""
        self._frames.clear()
        self.under_way = 0.0
