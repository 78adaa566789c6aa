"""One client's connection: reads frames, asks the service, and sends what there is to send, over
any transport."""

import asyncio
import contextlib
import logging

from rtvc.engine.admission.limits import Bucket
from rtvc.engine.protocol.fields import Code
from rtvc.engine.protocol.messages import Draining
from rtvc.engine.protocol.refusals import Refusal
from rtvc.engine.protocol.server_side import Phase
from rtvc.engine.protocol.streams import Audio
from rtvc.engine.server import reasons
from rtvc.engine.server.dialogue import Dialogue, Peer
from rtvc.engine.server.service import Service
from rtvc.engine.server.session import Output, ServerSession
from rtvc.engine.server.transport import Gone, Transport

MOST_REPLIES = 64
"""Control messages that wait to be sent before nothing more is read."""
BURST_S = 2.0
"""Seconds of a client's allowance that it may use at once."""
STALL_S = 0.1
"""Seconds that one frame may take to be taken before its client counts as slow: its lag is then its
own."""
LAST_WORDS_S = 2.0
"""Seconds that a client is given to take what is still to be sent when its connection is closed."""
CLOSE_CODES = {Code.FULL: 1013, Code.DRAINING: 1001, Code.TOO_LARGE: 1009, Code.INTERNAL: 1011}

log = logging.getLogger("rtvc.serve")


class Connection:
    """A connection's life; `run` is all of it. Sessions and the service see it as a `Listener`.

    Args:
        service: what it asks.
        transport: what carries its frames.

    Attributes:
        dialogue: what its client asked for, and is answered.
        last_heard: when something came.
    """

    def __init__(self, service: Service, transport: Transport) -> None:
        self.service, self.transport, self.limits = service, transport, service.limits
        self.dialogue = Dialogue(service, transport, self)
        self.last_heard = service.pool.clock()
        self._to_send, self._taken = asyncio.Event(), asyncio.Event()
        limits, clock = self.limits, service.pool.clock
        self._frames = Bucket(limits.frames_per_second, BURST_S * limits.frames_per_second, clock)
        self._messages = Bucket(
            limits.messages_per_second, BURST_S * limits.messages_per_second, clock
        )
        self._reader: asyncio.Task[None] | None = None
        self._verdict: Refusal | None = None

    @property
    def address(self) -> str:
        """Of the client."""
        return self.transport.address

    @property
    def greeted(self) -> bool:
        """Whether the client was let in."""
        return self.dialogue.peer is not Peer.STRANGER

    def wake(self) -> None:
        """There is something to send."""
        self._to_send.set()

    def detach(self, session: ServerSession) -> None:
        """A session does not go on here: what still arrives for it is thrown away."""
        self.dialogue.detach(session)

    async def close(self, code: int, reason: str) -> None:
        """Closes at once."""
        await self.transport.close(code, reason)

    async def run(self) -> None:
        """Serves the client until it leaves or is expelled; its session, if one still runs, waits
        for it to come back."""
        service = self.service
        service.connections.add(self)
        sender = asyncio.create_task(self._send())
        self._reader = asyncio.create_task(self._read())
        verdict: Refusal | None = None
        try:
            await asyncio.wait({sender, self._reader}, return_when=asyncio.FIRST_COMPLETED)
            verdict = self._verdict or self._outcome(self._reader) or self._outcome(sender)
            if verdict is not None:
                await self._say_last(verdict, sender)
        finally:
            for task in (sender, self._reader):
                task.cancel()
            await asyncio.gather(sender, self._reader, return_exceptions=True)
            service.connections.discard(self)
            self.dialogue.reception.over()
            await self._part(verdict)

    def check(self, now: float) -> None:
        """Expels a client that has been silent for too long; the service asks now and then."""
        stranger = self.dialogue.side.phase is Phase.GREETING
        patience = self.limits.hello_s if stranger else self.limits.idle_s
        if now - self.last_heard > patience:
            advice = "send audio, or a ping now and then"
            self.expel(Refusal(Code.IDLE, f"nothing came for {patience:g} s", advice, fatal=True))
        late = self.dialogue.reception.overdue(now)
        if late is not None:
            self.expel(late)

    def expel(self, why: Refusal) -> None:
        """Tells the client why, and closes."""
        if self._verdict is None and self._reader is not None:
            self._verdict = why
            self._reader.cancel()

    def drain(self, seconds: float) -> None:
        """The server goes down soon: a client with a session may end it, any other may go at
        once."""
        if self.dialogue.side.phase is not Phase.GREETING:
            self.dialogue.reply(Draining(seconds=seconds))
        if self.dialogue.session is None and (
            self.dialogue.done is None or not self.dialogue.acknowledges
        ):
            self.expel(reasons.draining())

    def _outcome(self, task: "asyncio.Task[None]") -> Refusal | None:
        """Why a task of this connection ended; None when the client left."""
        if not task.done() or task.cancelled():
            return None
        error = task.exception()
        if error is None or isinstance(error, Gone):
            return None
        if isinstance(error, Refusal):
            return error
        self.service.metrics.crashes.inc()
        log.error("address=%s an error that should not happen", self.address, exc_info=error)
        return reasons.broken("something went wrong here", "connect again")

    async def _say_last(self, verdict: Refusal, sender: "asyncio.Task[None]") -> None:
        error = verdict.error
        self.dialogue.note(error)
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)
        self.dialogue.reply(error)
        with contextlib.suppress(Gone, TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                while self.dialogue.replies:
                    await self.transport.send(self.dialogue.replies.popleft())
                await self.transport.close(CLOSE_CODES.get(error.code, 1008), error.code.value)

    async def _part(self, verdict: Refusal | None) -> None:
        """Leaves the session: to wait for its client if that was lost, for good if it broke the
        rules."""
        broke = verdict is not None and verdict.error.code not in (Code.IDLE, Code.DRAINING)
        for session in (self.dialogue.done, self.dialogue.session):
            if session is None or session.listener is not self:
                continue
            if broke or (session is self.dialogue.done and self.dialogue.peer is Peer.LEFT):
                await self.service.end(session)
                continue
            log.info(
                "session=%s waits for its client, address=%s was lost", session.id, self.address
            )
            self.service.abandon(session)
            if session.output is Output.SENT:
                await self.service.finish(session)

    async def _read(self) -> None:
        while True:
            try:
                data = await self.transport.receive()
            except Gone as gone:
                if gone.well and self.dialogue.peer is Peer.KNOWN:
                    self.dialogue.peer = Peer.LEFT
                raise
            self.last_heard = self.service.pool.clock()
            delay = (self._messages if isinstance(data, str) else self._frames).wait()
            if delay:
                await asyncio.sleep(delay)
            event = self.dialogue.side.receive(data)
            try:
                if isinstance(event, Audio):
                    await self._take_audio(event)
                else:
                    await self.dialogue.handle(event)
            except Refusal as refusal:
                if refusal.error.fatal:
                    raise
                self.dialogue.forgive(refusal.error)
            while len(self.dialogue.replies) > MOST_REPLIES:
                self._taken.clear()
                await self._taken.wait()

    async def _take_audio(self, audio: Audio) -> None:
        session = self.dialogue.session
        if session is None:
            return
        session.feed(audio)
        if audio.end:
            session.finish()
        while not session.has_room(self.limits.queue_s):
            await session.room.wait()

    async def _send(self) -> None:
        while True:
            await self._to_send.wait()
            self._to_send.clear()
            while await self._send_next():
                pass
            session = self.dialogue.session
            if session is not None and session.output is Output.SENT and not self.dialogue.replies:
                self.dialogue.conclude(session)
                await self.service.finish(session)
                log.info("session=%s stopped samples=%d", session.id, session.samples_out)

    async def _send_next(self) -> bool:
        """Sends a reply or, when there is none, a frame of the session; False for neither."""
        session = self.dialogue.session
        if self.dialogue.replies:
            data: str | bytes | None = self.dialogue.replies.popleft()
            self._taken.set()
        else:
            silence = "silence" in self.dialogue.capabilities
            data = None if session is None else session.frame(silence)
        if data is None:
            return False
        began = self.service.pool.clock()
        await self.transport.send(data)
        if session is not None and self.service.pool.clock() - began > STALL_S:
            session.stalled = True
        if session is not None and not session.room.is_set():
            session.has_room(self.limits.queue_s)
        return True
