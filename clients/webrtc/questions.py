"""Questions and answers over a data channel."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from rtvc.engine.protocol.client_side import ClientSide
from rtvc.engine.protocol.frames import END, UPLOAD, Frame
from rtvc.engine.protocol.messages import Error
from rtvc.engine.protocol.refusals import Refusal, Violation
from rtvc.errors import RtvcError, ServiceError

if TYPE_CHECKING:
    from aiortc import RTCDataChannel

Answer = TypeVar("Answer")

ANSWER_S = 20.0
"""Within this time a question is answered."""
PIECE = 16_384
"""Bytes of a file in one message: data channels of some servers take no more than 64 KiB."""
UNSENT = 1 << 18
"""Bytes of a file that may wait to be sent."""


class Questions:
    """Asks one thing at a time.

    Args:
        channel: over which it asks.
        side: the protocol's client end.
        news: called when something came, or broke.

    Attributes:
        problem: what broke the call off, if anything did.
    """

    def __init__(
        self, channel: "RTCDataChannel", side: ClientSide, news: Callable[[], None]
    ) -> None:
        self.channel, self.side, self.news = channel, side, news
        self.problem: RtvcError | None = None
        self._turn = asyncio.Lock()
        self._asked: tuple[type, asyncio.Future[Any]] | None = None
        channel.on("message", self._message)
        channel.on("close", self.lost)

    def lost(self, problem: RtvcError | None = None) -> None:
        """There is no call any more; what was the matter before remains the problem."""
        broken = problem or ServiceError("the call broke off: make another one")
        self.problem = self.problem or broken
        if self._asked and not self._asked[1].done():
            self._asked[1].set_exception(self.problem)
        self.news()

    def _message(self, data: str | bytes) -> None:
        event = self.side.receive(data) if isinstance(data, str) else None
        if isinstance(event, Violation):
            self.lost(ServiceError(f"the server says nonsense ({event.error.message})"))
        if isinstance(event, Error) and event.fatal:
            self.lost(Refusal.of(event))
        if self._asked is not None and not self._asked[1].done():
            if isinstance(event, self._asked[0]):
                self._asked[1].set_result(event)
            elif isinstance(event, Error):
                self._asked[1].set_exception(Refusal.of(event))
        self.news()

    async def ask(
        self,
        text: str,
        expected: type[Answer],
        pieces: Sequence[bytes] = (),
        patience: float = ANSWER_S,
    ) -> Answer:
        """Sends a message, and `pieces` of a file after it; returns the answer.

        Raises:
            Refusal: the server said no.
            ServiceError: no answer came, or the call is over.
        """
        async with self._turn:
            if self.problem:
                raise self.problem
            answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            self._asked = expected, answer
            try:
                self.channel.send(text)
                for piece in pieces:
                    while self.channel.bufferedAmount > UNSENT and not answer.done():
                        await asyncio.sleep(0.01)
                    if answer.done():
                        break
                    self.channel.send(piece)
                async with asyncio.timeout(patience):
                    return await answer
            except TimeoutError:
                why = f"no answer came within {patience:g} s: is the server overloaded?"
                raise ServiceError(why) from None
            finally:
                self._asked = None


def pieces_of(data: bytes) -> list[bytes]:
    """A file as frames that a data channel takes."""
    starts = range(0, len(data), PIECE)
    return [
        Frame(UPLOAD | END * (at == starts[-1]), 0, index, 0, data[at : at + PIECE]).to_bytes()
        for index, at in enumerate(starts)
    ]
