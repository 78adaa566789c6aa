"""Two answers to when audio was captured: by what the client says, for the client; by arrivals
alone, for who runs the server."""

from collections import deque

WINDOW_S = 5.0
"""Seconds of frames over which the quickest one is looked for; the window before it counts, too."""
AHEAD_S = 1.0
"""Seconds by which a client may be ahead of a microphone: files sent as fast as they go say nothing
about lag."""
OLDEST_S = 10.0
"""Seconds of age that a frame can have at most, whatever its timestamp says."""


class ClientClock:
    """The difference of two clocks that nobody set, from timestamps and arrivals alone.

    The quickest frame of the last windows is taken to have needed no time (Cristian's algorithm
    with the network's least delay as zero), so what a slow network adds later counts as age, and a
    client's clock that drifts is followed.
    """

    def __init__(self) -> None:
        self._least = self._before = float("inf")
        self._opened = float("-inf")

    @property
    def offset(self) -> float:
        """Seconds to add to the client's time to get the server's; 0 before the first frame."""
        least = min(self._least, self._before)
        return 0.0 if least == float("inf") else least

    def restore(self, offset: float, now: float) -> None:
        """Goes on from the `offset` of another clock at `now`, in seconds of the server's clock."""
        self._least, self._opened = offset, now

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


class Arrivals:
    """How old audio is by the server's clock alone: nothing that a client claims, or leaves unread,
    makes it older or younger.

    A sample counts as captured when its frame arrived less what of the frame came after it, as if
    the network took no time.

    Args:
        rate: of the input, in Hz.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._marks: deque[tuple[int, float]] = (
            deque()
        )  # (number of a frame's first sample, when that was captured)
        self._ahead, self._at = 0.0, 0.0

    def arrived(self, first: int, count: int, now: float) -> None:
        """A frame of `count` samples, which begins with sample number `first`, arrived at `now`
        seconds."""
        duration = count / self.rate
        self._ahead, self._at = max(0.0, self._ahead - (now - self._at)) + duration, now
        self._marks.append((first, now - duration))

    def age(self, sample: float, now: float) -> float | None:
        """Seconds since a sample was captured; None when nobody knows, or the client sends faster
        than anybody speaks."""
        while len(self._marks) > 1 and self._marks[1][0] <= sample:
            self._marks.popleft()
        if not self._marks or sample < self._marks[0][0] or self._ahead > AHEAD_S:
            return None
        first, captured = self._marks[0]
        return max(0.0, now - captured - (sample - first) / self.rate)
