"""What a client asks for over its connection, and is answered: sessions, changes, voices,
uploads."""

import asyncio
import logging
from collections import deque
from enum import Enum

from rtvc.engine.protocol.fields import Code
from rtvc.engine.protocol.messages import (
    AskStats,
    ClientMessage,
    Control,
    Controlled,
    Error,
    Hello,
    ListVoices,
    Ping,
    Pong,
    Resume,
    Resumed,
    ServerMessage,
    Start,
    Started,
    Stats,
    Stop,
    Stopped,
    Update,
    Updated,
    Upload,
)
from rtvc.engine.protocol.refusals import Refusal, Violation
from rtvc.engine.protocol.server_side import ServerSide
from rtvc.engine.protocol.upload import Uploaded
from rtvc.engine.server import reasons
from rtvc.engine.server.reception import Reception
from rtvc.engine.server.service import Service
from rtvc.engine.server.session import Listener, ServerSession
from rtvc.engine.server.transport import Transport

FAILURE_S = 1.0
"""Seconds that who has sent many wrong secrets waits for the answer to another one."""

log = logging.getLogger("rtvc.serve")


class Peer(Enum):
    """What is known of the client."""

    STRANGER = "it has not said hello"
    KNOWN = "it was let in"
    LEFT = "it said goodbye"


class Dialogue:
    """The control messages of one connection.

    Args:
        service: what it asks.
        transport: what carries the frames; told when the client is known.
        listener: the connection, for sessions to tell that there is something to send.

    Attributes:
        side: the protocol's end of it.
        session: the one that runs here.
        done: the one that ended here last, until its client has all of it.
        peer: what is known of the client.
        capabilities: that the client named.
        replies: messages that are to be sent.
        reception: of the client's uploads.
    """

    def __init__(self, service: Service, transport: Transport, listener: Listener) -> None:
        self.service, self.transport, self.listener = service, transport, listener
        self.side = ServerSide(service.limits.upload_bytes)
        self.session: ServerSession | None = None
        self.done: ServerSession | None = None
        self.peer, self.capabilities = Peer.STRANGER, frozenset[str]()
        self.replies: deque[str] = deque()
        self.reception = Reception(service, self.side, transport.address, self.reply, self.note)
        self._mistakes = 0
        self._control: str | None = None  # by which others may change the sessions of this client
        self._elsewhere: ServerSession | None = None  # another's session, changed from here

    @property
    def acknowledges(self) -> bool:
        """Whether the client says what it has."""
        return "acknowledge" in self.capabilities

    def detach(self, session: ServerSession) -> None:
        """A session does not go on here: what still arrives for it is thrown away."""
        if self.session is session:
            self.session = None
        if self.done is session:
            self.done = None

    def conclude(self, session: ServerSession) -> None:
        """All of the session was sent."""
        self.session, self.done = None, session
        self.reply(Stopped(**session.totals()))

    async def handle(self, event: ClientMessage | Uploaded | Violation | None) -> None:
        """Does what a message asks for, and answers it.

        Raises:
            Refusal: it is not to be had.
        """
        service, session = self.service, self.session
        match event:
            case None:
                pass
            case Violation(error):
                if error.code is Code.BAD_UPLOAD:
                    self.reception.over()
                raise Refusal(error.code, error.message, error.advice, fatal=error.fatal)
            case Hello():
                await self._greet(event)
            case Start():
                await self._end_done()
                started = await service.start(event, self.transport.address)
                started.control, self._elsewhere = self._control, None
                self._attach(started)
                self._say_started()
            case Resume():
                await service.fetch(event)
                self._resume(event)
            case Control():
                self._elsewhere = await self._controlled(event)
                self.reply(Controlled(session=self._elsewhere.id, **self._elsewhere.controls()))
            case Update() if (changed := session or self._elsewhere) is not None:
                if changed.id not in service.sessions:
                    raise Refusal(Code.UNKNOWN_SESSION, "the session is over", "begin another")
                await service.change(changed, event)
                self.reply(Updated(**changed.controls()))
            case Stop() if session is not None:
                session.finish()
            case ListVoices():
                self.reply(await service.workers.stored(service.store.listed))
            case Ping():
                await self._acknowledged(event.received)
                now = round(1e6 * service.pool.clock())
                self.reply(Pong(id=event.id, time=event.time, server_time=now))
            case AskStats():
                self._say_stats()
            case Upload():
                await self.reception.announced(event)
            case Uploaded():
                self.reception.arrived(event)

    async def _greet(self, hello: Hello) -> None:
        address, failures = self.transport.address, self.service.failures
        if not self.service.access.token_is_right(hello.token):
            failures.add(address)
            if failures.too_many(address):
                # The right token never waits: others may share the address.
                await asyncio.sleep(FAILURE_S)
            message, advice = "the token is missing or wrong", "ask who runs the server for one"
            raise Refusal(Code.UNAUTHORIZED, message, advice, fatal=True)
        others = [other for other in self.service.connections if other.greeted]
        same = sum(other.address == address for other in others)
        if (
            len(others) >= self.service.limits.connections
            or same >= self.service.limits.connections_per_address
        ):
            raise reasons.full("too many connections are open", "try again later")
        self.peer, self.capabilities = Peer.KNOWN, frozenset(hello.capabilities)
        self._control = hello.control.get_secret_value() if hello.control else None
        self.transport.greeted()
        self.reply(self.service.welcome())

    async def _controlled(self, control: Control) -> ServerSession:
        """The running session that a secret controls.

        Args:
            control: with the secret; who guesses waits.

        Raises:
            Refusal: there is none.
        """
        secret = control.control.get_secret_value()
        # All are compared: how long it takes tells nothing.
        sessions = self.service.sessions.values()
        known = [session for session in sessions if session.is_control(secret)]
        if known:
            return known[-1]
        address, failures = self.transport.address, self.service.failures
        failures.add(address)
        if failures.too_many(address):
            await asyncio.sleep(FAILURE_S)
        message = "no session that runs here was begun with this secret"
        raise Refusal(Code.UNKNOWN_SESSION, message, "begin one with `control` in its hello")

    def _attach(self, session: ServerSession) -> None:
        self.session = session
        session.attach(self.listener, self.acknowledges)
        self.side.attach(session.incoming)

    async def _acknowledged(self, received: int | None) -> None:
        """The client has every frame before that number."""
        session = self.session or self.done
        if session is None or received is None:
            return
        session.outgoing.forget(received)
        if session is self.done and self.acknowledges and session.outgoing.acknowledged:
            await self._end_done()

    async def _end_done(self) -> None:
        """The client has all of the session that ended here last."""
        session, self.done = self.done, None
        if session is not None:
            await self.service.end(session)

    def _say_started(self) -> None:
        session = self.session
        assert session is not None
        text = "session=%s started address=%s rate=%d format=%s"
        log.info(text, session.id, self.transport.address, session.rate_in, session.start.format)
        self.reply(
            Started.model_validate(
                {
                    "session": session.id,
                    "key": session.key,
                    "sample_rate": session.rate_in,
                    "output_rate": session.rate_out,
                    "format": session.start.format,
                    "voice": session.voice,
                    "latency_ms": 1000 * session.pooled.latency,
                },
                strict=False,
            )
        )

    def _resume(self, resume: Resume) -> None:
        session = self.service.resume(
            resume.session, resume.key.get_secret_value(), resume.received
        )
        before = session.detach()
        if before is not None:
            before.expel(reasons.superseded())
        self._attach(session)
        # One that moved here forgot it on the way.
        session.control = self._control or session.control
        log.info("session=%s resumed address=%s", session.id, self.transport.address)
        self.reply(Resumed(session=session.id, wanted=session.incoming.expected))
        self.listener.wake()

    def _say_stats(self) -> None:
        session = self.session or self._elsewhere
        if session is None:
            raise Refusal(Code.UNEXPECTED, "`stats` came without a session", "start one first")
        self.reply(
            Stats(
                **session.totals(),
                queued_ms=1000 * session.queued,
                waiting_ms=1000 * session.waiting.seconds,
                load=self.service.pool.load,
            )
        )

    def forgive(self, error: Error) -> None:
        """A mistake that can be forgiven, unless there are many."""
        self.note(error)
        self._mistakes += 1
        if self._mistakes > self.service.limits.mistakes:
            message = f"more than {self.service.limits.mistakes} mistakes came"
            raise Refusal(Code.RATE_LIMITED, message, "see docs/protocol.md", fatal=True)
        self.reply(error)

    def note(self, error: Error) -> None:
        """Counts a refusal, and writes it down."""
        self.service.metrics.refusals.labels(error.code.value).inc()
        log.warning("refused code=%s address=%s", error.code.value, self.transport.address)

    def reply(self, message: ServerMessage) -> None:
        """Queues a message for the client."""
        self.replies.append(self.side.send(message))
        self.listener.wake()
