"""How much audio is under way to the server and back: what bounds every queue of a client, and
makes fast senders wait."""

import asyncio
from collections import deque

from rtvc.engine.protocol.streams import Audio
from rtvc.errors import ServiceError

PATIENCE_S = 30.0
"""A sender that waits this long for room is told why."""
SURPLUS_S = 12.0
"""Seconds of output beyond the window that may wait here: what a server keeps to send again, and
some more."""


class Window:
    """Input that has been sent and whose output has not been taken yet.

    Input leaves the window when output captured at the same time or later is taken, so audio that
    the server drops leaves it too.

    Args:
        seconds: of audio that may be under way.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._sum = 0  # microseconds
        self._frames: deque[tuple[int, int]] = (
            deque()
        )  # (capture time of the frame's end, its duration), in microseconds

    @property
    def under_way(self) -> float:
        """Seconds of input whose output was not taken."""
        return self._sum / 1e6

    @property
    def full(self) -> bool:
        """Whether more input has to wait, or to be dropped."""
        return self.under_way >= self.seconds

    def sent(self, timestamp: int, duration: float) -> None:
        """A frame that began at `timestamp` microseconds and lasts `duration` seconds has been
        sent."""
        lasts = round(1e6 * duration)
        self._frames.append((timestamp + lasts, lasts))
        self._sum += lasts

    def taken(self, timestamp: int, duration: float) -> None:
        """Output was taken whose input began at `timestamp` microseconds and lasted `duration`
        seconds."""
        end = timestamp + round(1e6 * duration)
        while self._frames and self._frames[0][0] <= end:
            self._sum -= self._frames.popleft()[1]


class Flow:
    """One session's audio between the link and whoever uses the client, all in one event loop.

    Args:
        window: seconds of input that may be under way.
        rate: of the output, in Hz.

    Attributes:
        over: whether the session has ended as it should.
        problem: what broke it off, if anything did.
    """

    def __init__(self, window: float, rate: int) -> None:
        self.window, self.rate = Window(window), rate
        self.over = False
        self.problem: Exception | None = None
        self.waiting = 0.0  # seconds of output that nobody took yet
        self._queue: deque[Audio] = deque()
        self._changed = asyncio.Event()

    def hear(self, audio: Audio) -> None:
        """Queues what came."""
        self._queue.append(audio)
        self.waiting += len(audio.samples) / self.rate
        if self.waiting > self.window.seconds + SURPLUS_S:
            self.end(
                ServiceError(
                    f"{self.waiting:.1f} s of audio came that nobody asked for: the server and this"
                    " client do not fit"
                )
            )
        self._changed.set()

    def end(self, problem: Exception | None = None) -> None:
        """The session is over, or breaks off."""
        self.over = self.over or problem is None
        self.problem = self.problem or problem
        self._changed.set()

    async def change(self) -> None:
        """Waits until something happens: audio comes or is taken, the session ends or breaks
        off."""
        self._changed.clear()
        await self._changed.wait()

    async def room(self) -> None:
        """Waits until more may be sent.

        Raises:
            ServiceError: the session broke off, or there is no room because nothing moves.
        """
        try:
            async with asyncio.timeout(PATIENCE_S):
                while self.window.full and self.problem is None:
                    await self.change()
        except TimeoutError:
            if not self._queue:
                raise ServiceError(
                    f"the server has converted nothing for {PATIENCE_S:g} s: is it overloaded?"
                ) from None
            waiting = f"{self.waiting:.1f} s of converted audio wait and nobody takes them"
            raise ServiceError(
                f"{waiting}: iterate over the client while sending, or use `convert`"
            ) from None
        if self.problem is not None:
            raise self.problem

    async def next(self) -> Audio | None:
        """The next piece of output; None when the session is over.

        Raises:
            ServiceError: the session broke off.
        """
        while not self._queue:
            if self.over:
                return None
            if self.problem is not None:
                raise self.problem
            await self.change()
        return self._take()

    def ready(self) -> list[Audio]:
        """All output that is here, without waiting.

        Raises:
            ServiceError: there is none and the session broke off.
        """
        if not self._queue and self.problem is not None and not self.over:
            raise self.problem
        return [self._take() for _ in range(len(self._queue))]

    def _take(self) -> Audio:
        audio = self._queue.popleft()
        duration = len(audio.samples) / self.rate
        self.waiting -= duration
        self.window.taken(audio.timestamp, duration)
        self._changed.set()
        return audio
