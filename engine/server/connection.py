"""One client's connection: reads frames, asks the service, and sends what there is to send, over
any transport."""

import asyncio
import contextlib
import logging
from collections import deque
from typing import Protocol

from rtvc.engine.admission.limits import Bucket
from rtvc.engine.protocol.messages import (
    AskStats,
    ClientMessage,
    Code,
    Draining,
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
from rtvc.engine.protocol.refusals import Phase, Refusal, Refused, Uploaded
from rtvc.engine.protocol.sides import ServerSide
from rtvc.engine.protocol.streams import Audio
from rtvc.engine.server.reception import Reception
from rtvc.engine.server.service import Service
from rtvc.engine.server.session import Call

MOST_REPLIES = 64
"""Control messages that wait to be sent before nothing more is read."""
BURST_S = 2.0
"""Seconds of a client's allowance that it may use at once."""
STALL_S = 0.1
"""Seconds that one frame may take to be taken before its client counts as slow: its lag is then its
own."""
FAILURE_S = 1.0
"""Seconds that who has sent many wrong tokens waits for the answer to another one."""
LAST_WORDS_S = 2.0
"""Seconds that a client is given to take what is still to be sent when its connection is closed."""
CLOSE_CODES = {Code.FULL: 1013, Code.DRAINING: 1001, Code.TOO_LARGE: 1009, Code.INTERNAL: 1011}

log = logging.getLogger("rtvc.serve")


class Gone(Exception):
    """The client closed the connection, or it broke.

    Attributes:
        well: the client said goodbye, so it has everything that it wanted.
    """

    def __init__(self, *, well: bool = False) -> None:
        super().__init__()
        self.well = well


class Transport(Protocol):
    """What carries the frames.

    Attributes:
        address: of the client, for the log.
    """

    address: str

    async def receive(self) -> str | bytes:
        """The next frame.

        Raises:
            Gone: there will be none.
        """
        ...

    async def send(self, data: str | bytes) -> None:
        """Sends a frame; waits while the client is slow.

        Raises:
            Gone: it cannot be sent.
        """
        ...

    def greeted(self) -> None:
        """Hears that the client is known from now on."""
        ...

    async def close(self, code: int, reason: str) -> None:
        """Ends the connection, and does not wait long for a client that does not listen."""
        ...


class Connection:
    """A connection's life; `run` is all of it.

    Args:
        service: what it asks.
        transport: what carries its frames.
    """

    def __init__(self, service: Service, transport: Transport) -> None:
        self.service, self.transport, self.limits = service, transport, service.limits
        self.side = ServerSide(self.limits.upload_bytes)
        self.call: Call | None = None
        self.done: Call | None = (
            None  # the session that ended here last, until its client has all of it
        )
        self.wake, self.taken = asyncio.Event(), asyncio.Event()
        self.heard, self.greeted = service.pool.clock(), False
        limits, clock = self.limits, service.pool.clock
        self._frames = Bucket(limits.frames_per_second, BURST_S * limits.frames_per_second, clock)
        self._messages = Bucket(
            limits.messages_per_second, BURST_S * limits.messages_per_second, clock
        )
        self._replies: deque[str] = deque()
        self._mistakes = 0
        self._silence = self._acknowledges = self._left_well = False
        self._reader: asyncio.Task[None] | None = None
        self._verdict: Refusal | None = None
        self.reception = Reception(service, self.side, transport.address, self._reply, self._note)

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
            self.reception.over()
            await self._part(verdict)

    def check(self, now: float) -> None:
        """Expels a client that has been silent for too long; the service asks now and then."""
        patience = self.limits.hello_s if self.side.phase is Phase.GREETING else self.limits.idle_s
        if now - self.heard > patience:
            self.expel(
                Refusal(
                    Code.IDLE,
                    f"nothing came for {patience:g} s",
                    "send audio, or a ping now and then",
                    fatal=True,
                )
            )
        late = self.reception.overdue(now)
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
        if self.side.phase is not Phase.GREETING:
            self._reply(Draining(seconds=seconds))
        if self.call is None and (self.done is None or not self._acknowledges):
            self.expel(
                Refusal(
                    Code.DRAINING,
                    "this server is going down",
                    "connect again: another one takes over",
                    fatal=True,
                )
            )

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
        log.error(
            "address=%s an error that should not happen", self.transport.address, exc_info=error
        )
        return Refusal(Code.INTERNAL, "something went wrong here", "connect again", fatal=True)

    async def _say_last(self, verdict: Refusal, sender: "asyncio.Task[None]") -> None:
        error = verdict.error
        self._note(error)
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)
        self._reply(error)
        with contextlib.suppress(Gone, TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                while self._replies:
                    await self.transport.send(self._replies.popleft())
                await self.transport.close(CLOSE_CODES.get(error.code, 1008), error.code.value)

    async def _part(self, verdict: Refusal | None) -> None:
        """Leaves the session: to wait for its client if that was lost, for good if it broke the
        rules."""
        broke = verdict is not None and verdict.error.code not in (Code.IDLE, Code.DRAINING)
        for call in (self.done, self.call):
            if call is None or call.connection is not self:
                continue
            if broke or (call is self.done and self._left_well):
                await self.service.end(call)
                continue
            log.info(
                "session=%s waits for its client, address=%s was lost",
                call.id,
                self.transport.address,
            )
            self.service.abandon(call)
            if call.finished:
                await self.service.finish(call)

    async def _read(self) -> None:
        while True:
            try:
                data = await self.transport.receive()
            except Gone as gone:
                self._left_well = gone.well
                raise
            self.heard = self.service.pool.clock()
            delay = (self._messages if isinstance(data, str) else self._frames).wait()
            if delay:
                await asyncio.sleep(delay)
            event = self.side.receive(data)
            try:
                await self._handle(event)
            except Refusal as refusal:
                if refusal.error.fatal:
                    raise
                self._refuse(refusal.error)
            while len(self._replies) > MOST_REPLIES:
                self.taken.clear()
                await self.taken.wait()

    async def _handle(self, event: ClientMessage | Audio | Uploaded | Refused | None) -> None:
        service, call = self.service, self.call
        match event:
            case None:
                pass
            case Audio() if call is not None:
                call.feed(event)
                if event.end:
                    call.member.finish()
                while not call.has_room(self.limits.queue_s):
                    await call.room.wait()
            case Refused(error):
                if error.code is Code.BAD_UPLOAD:
                    self.reception.over()
                raise Refusal(error.code, error.message, error.advice, fatal=error.fatal)
            case Hello():
                await self._greet(event)
            case Start():
                await self._settle()
                self._attach(await service.start(event, self.transport.address))
                self._started()
            case Resume():
                await service.fetch(event)
                self._resume(event)
            case Update() if call is not None:
                await service.change(call, event)
                self._reply(
                    Updated(
                        voice=call.voice,
                        pitch=call.member.pitch,
                        prosody=call.member.prosody,
                        wet=call.wet,
                    )
                )
            case Stop() if call is not None:
                call.member.finish()
            case ListVoices():
                self._reply(await service.stored(service.store.listed))
            case Ping():
                await self._acknowledged(event.received)
                self._reply(
                    Pong(
                        id=event.id, time=event.time, server_time=round(1e6 * service.pool.clock())
                    )
                )
            case AskStats():
                self._stats()
            case Upload():
                await self.reception.announced(event)
            case Uploaded():
                self.reception.arrived(event)

    async def _greet(self, hello: Hello) -> None:
        address, failures = self.transport.address, self.service.failures
        if not self.service.access.token_is_right(hello.token):
            failures.add(address)
            if failures.too_many(
                address
            ):  # the right token never waits: others may share the address
                await asyncio.sleep(FAILURE_S)
            raise Refusal(
                Code.UNAUTHORIZED,
                "the token is missing or wrong",
                "ask who runs the server for one",
                fatal=True,
            )
        others = [other for other in self.service.connections if other.greeted]
        same = sum(other.transport.address == address for other in others)
        if len(others) >= self.limits.connections or same >= self.limits.connections_per_address:
            raise Refusal(Code.FULL, "too many connections are open", "try again later", fatal=True)
        self.greeted = True
        self.transport.greeted()
        self._silence, self._acknowledges = (
            "silence" in hello.capabilities,
            "acknowledge" in hello.capabilities,
        )
        self._reply(self.service.welcome())

    def _attach(self, call: Call) -> None:
        self.call = call
        call.attach(self, self._acknowledges)
        self.side.attach(call.incoming)

    async def _acknowledged(self, received: int | None) -> None:
        """The client has every frame before that number."""
        call = self.call or self.done
        if call is None or received is None:
            return
        call.outgoing.forget(received)
        if call is self.done and self._acknowledges and call.outgoing.acknowledged:
            await self._settle()

    async def _settle(self) -> None:
        """The client has all of the session that ended here last."""
        call, self.done = self.done, None
        if call is not None:
            await self.service.end(call)

    def _started(self) -> None:
        call = self.call
        assert call is not None
        log.info(
            "session=%s started address=%s rate=%d format=%s",
            call.id,
            self.transport.address,
            call.rate_in,
            call.start.format,
        )
        self._reply(
            Started.model_validate(
                {
                    "session": call.id,
                    "key": call.key,
                    "sample_rate": call.rate_in,
                    "output_rate": call.rate_out,
                    "format": call.start.format,
                    "voice": call.voice,
                    "latency_ms": 1000 * call.member.latency,
                },
                strict=False,
            )
        )

    def _resume(self, resume: Resume) -> None:
        call = self.service.resume(resume.session, resume.key.get_secret_value(), resume.received)
        if call.connection is not None:
            before, call.connection = call.connection, None
            before.call = before.done = None
            before.expel(
                Refusal(Code.SUPERSEDED, "the session goes on over another connection", fatal=True)
            )
        self._attach(call)
        log.info("session=%s resumed address=%s", call.id, self.transport.address)
        self._reply(Resumed(session=call.id, wanted=call.incoming.wanted))
        self.wake.set()

    def _stats(self) -> None:
        call = self.call
        if call is None:
            raise Refusal(Code.UNEXPECTED, "`stats` came without a session", "start one first")
        waiting = call.waiting.seconds
        self._reply(
            Stats(
                **call.totals(),
                queued_ms=1000 * call.queued,
                waiting_ms=1000 * waiting,
                load=self.service.pool.load,
            )
        )

    def _refuse(self, error: Error) -> None:
        """A mistake that can be forgiven, unless there are many."""
        self._note(error)
        self._mistakes += 1
        if self._mistakes > self.limits.mistakes:
            raise Refusal(
                Code.RATE_LIMITED,
                f"more than {self.limits.mistakes} mistakes came",
                "see docs/protocol.md",
                fatal=True,
            )
        self._reply(error)

    def _note(self, error: Error) -> None:
        self.service.metrics.refusals.labels(error.code.value).inc()
        log.warning("refused code=%s address=%s", error.code.value, self.transport.address)

    def _reply(self, message: ServerMessage) -> None:
        self._replies.append(self.side.send(message))
        self.wake.set()

    async def _send(self) -> None:
        while True:
            await self.wake.wait()
            self.wake.clear()
            while True:
                call = self.call
                if self._replies:
                    data: str | bytes | None = self._replies.popleft()
                    self.taken.set()
                else:
                    data = None if call is None else call.frame(self._silence)
                if data is None:
                    break
                began = self.service.pool.clock()
                await self.transport.send(data)
                if call is not None and self.service.pool.clock() - began > STALL_S:
                    call.stalled = True
                if call is not None and not call.room.is_set():
                    call.has_room(self.limits.queue_s)
            if call is not None and call.finished and call is self.call and not self._replies:
                self.call, self.done = None, call
                self._reply(Stopped(**call.totals()))
                await self.service.finish(call)
                log.info("session=%s stopped samples=%d", call.id, call.samples_out)
