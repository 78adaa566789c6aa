"""The socket of the moment, and the next one when it breaks: questions, answers, resumption. Knows
nothing of audio's pace."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from rtvc.clients.websocket.dial import Server
from rtvc.clients.websocket.refusal import TEMPORARY, Refusal
from rtvc.engine.protocol.client_side import ClientSide
from rtvc.engine.protocol.messages import Draining, Error, Pong, Resumed, Stopped, Welcome
from rtvc.engine.protocol.refusals import Violation
from rtvc.engine.protocol.streams import Audio
from rtvc.errors import ProtocolError, RtvcError, ServiceError

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

LOG = logging.getLogger("rtvc.clients")
Answer = TypeVar("Answer")

ANSWER_S = 20.0
"""Within this time a question is answered."""
PING_S = 1.0
"""How often the server hears what has arrived and need not be kept; sooner where much arrives, or a
session has ended."""
RETRIES_S = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Pauses between attempts to resume; the last one repeats."""


class Link:
    """A connection that outlives its sockets while a session runs.

    Args:
        server: where it is.
        side: the protocol's client end, which remembers the session.
        hear: called with every piece of audio.
        end: called once, with what went wrong, when there is no connection any more.
    """

    def __init__(
        self,
        server: Server,
        side: ClientSide,
        hear: Callable[[Audio], None],
        end: Callable[[RtvcError], None],
    ) -> None:
        self.server, self.side, self.hear, self.end = server, side, hear, end
        self.resumed = 0
        self.up, self._news = asyncio.Event(), asyncio.Event()
        self._socket: ClientConnection
        self._turn = asyncio.Lock()
        self._asked: tuple[type, asyncio.Future[Any], str | None] | None = None
        self._problem: RtvcError | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> Welcome:
        """Connects.

        Raises:
            Refusal: the server does not want us.
            ServiceError: it cannot be reached.
        """
        self._socket = await self.server.dial(self.side)
        self.up.set()
        self._tasks = [asyncio.create_task(self._live()), asyncio.create_task(self._beat())]
        assert self.side.welcome is not None
        return self.side.welcome

    async def send(self, data: str | bytes) -> None:
        """Sends a frame; one that is lost with its connection, or comes while there is none, is
        sent by the resumption."""
        from websockets.exceptions import ConnectionClosed

        if self._problem:
            raise self._problem
        if not self.up.is_set():
            return
        try:
            await self._socket.send(data)
        except ConnectionClosed:
            LOG.debug("a frame was sent into a lost connection")

    async def ask(
        self,
        text: Callable[[], str],
        expected: type[Answer],
        more: Iterable[str | bytes] = (),
        patience: float = ANSWER_S,
    ) -> Answer:
        """Sends a message, made when there is a connection, and `more` after it; returns the
        answer.

        Raises:
            Refusal: the server said no.
            ServiceError: no answer came, or the connection is gone for good.
        """
        async with self._turn:
            if self._problem:
                raise self._problem
            answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            await self.up.wait()
            question = text()
            again = (
                question if not more and expected is not Stopped else None
            )  # `stop` is repeated by the protocol's side
            self._asked = (expected, answer, again)
            try:
                await self.send(question)
                for frame in more:
                    if answer.done():
                        break
                    await self.send(frame)
                async with asyncio.timeout(patience):
                    return await answer
            except TimeoutError:
                raise ServiceError(
                    f"no answer came from {self.server.url} within {patience:g} s: is the server"
                    " overloaded?"
                ) from None
            finally:
                self._asked = None

    async def close(self) -> None:
        """Ends the connection; what runs is cancelled."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._socket.close()

    async def _live(self) -> None:
        """Reads until the end, across as many sockets as it takes."""
        from websockets.exceptions import ConnectionClosed

        try:
            while True:
                try:
                    while True:
                        self._dispatch(self.side.receive(await self._socket.recv()))
                except ConnectionClosed as closed:
                    self.up.clear()
                    if self._problem is None and self.side.started is None:
                        self._problem = ServiceError(f"the server closed the connection ({closed})")
                    if self._problem:
                        raise self._problem from None
                    await self._resume()
        except RtvcError as problem:
            self._fail(problem)

    def _dispatch(self, event: Any) -> None:
        """Passes on what came."""
        if isinstance(event, Audio | Stopped):
            self._news.set()
        if isinstance(event, Audio):
            self.hear(event)
        elif self._asked and isinstance(event, self._asked[0]):
            if not self._asked[1].done():
                self._asked[1].set_result(event)
        elif isinstance(event, Error):
            refusal = Refusal.of(event)
            if event.fatal:
                self._problem = refusal
            if self._asked and not self._asked[1].done():
                self._asked[1].set_exception(refusal)
            elif not event.fatal:
                LOG.warning("%s", refusal)
        elif isinstance(event, Draining):
            LOG.warning("the server goes down within %g s", event.seconds)
        elif isinstance(event, Violation):
            raise ProtocolError(
                f"what the server sent is not of the protocol ({event.error.message})"
            )
        elif event is not None and not isinstance(event, Pong):
            LOG.debug("an answer that nobody waits for: %s", type(event).__name__)

    async def _resume(self) -> None:
        """Takes the session up on a new socket, within the time that the server keeps it.

        Raises:
            ServiceError: it was too late.
        """
        from websockets.exceptions import ConnectionClosed

        assert self.side.welcome is not None
        keeps = self.side.welcome.limits.resume_ms / 1000
        until, attempt = asyncio.get_running_loop().time() + keeps, 0
        last: RtvcError = ServiceError("the connection was lost")
        while (left := until - asyncio.get_running_loop().time()) > 0:
            try:
                self._socket = await self.server.dial(self.side, left)
                await self._socket.send(self.side.resume())
                answer = await self.server.expect(self._socket, self.side, Resumed, left)
                await self._catch_up(answer)
                if self._asked and self._asked[2]:
                    await self._socket.send(self._asked[2])
                elif self._asked and self._asked[0] is not Stopped and not self._asked[1].done():
                    self._asked[1].set_exception(
                        ServiceError("the connection was lost before the answer came: ask again")
                    )
                self.resumed += 1
                return
            except Refusal as refusal:
                if refusal.code not in TEMPORARY:
                    raise
                last = refusal
            except ServiceError as error:
                last = error
            except ConnectionClosed as error:
                last = ServiceError(f"the new connection broke as well ({error})")
            await asyncio.sleep(RETRIES_S[min(attempt, len(RETRIES_S) - 1)])
            attempt += 1
        raise ServiceError(
            f"the connection was lost and not found again within {keeps:g} s ({last}): start again"
        )

    async def _catch_up(self, answer: Resumed) -> None:
        """Sends what the server lacks, and what was made meanwhile: no frame may overtake
        another."""
        outgoing = self.side.outgoing
        assert outgoing is not None
        frames = self.side.again(answer)
        while frames:
            reached = outgoing.sequence
            for frame in frames:
                await self._socket.send(frame)
            frames = list(outgoing.again(reached))
        self.up.set()

    async def _beat(self) -> None:
        """Tells the server what has arrived: in a task of its own, because reading must never wait
        for sending."""
        clock = asyncio.get_running_loop().time
        last_sent = clock()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PING_S):
                    await self._news.wait()
            self._news.clear()
            if self._problem or not self.up.is_set():
                continue
            text = self.side.acknowledgement(always=clock() - last_sent >= PING_S)
            if text is not None:
                last_sent = clock()
                with contextlib.suppress(RtvcError):  # whoever waits for something hears of it
                    await self.send(text)

    def _fail(self, problem: RtvcError) -> None:
        """There is no connection any more."""
        self._problem = problem
        self.up.set()  # whoever waits for it learns the problem from `send`
        if self._asked and not self._asked[1].done():
            self._asked[1].set_exception(problem)
        self.end(problem)
