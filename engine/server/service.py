"""Everything that the connections of one server share: the pool and its thread, the sessions, the
voices, the limits.

A service knows nothing of sockets: `Connection` talks to one over whatever transport it is given.
"""

import asyncio
import contextlib
import functools
import logging
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from rtvc.engine.admission.access import Access
from rtvc.engine.admission.limits import Failures, ServerLimits
from rtvc.engine.backends.base import Backend
from rtvc.engine.protocol.formats import OPUS_RATES, offered
from rtvc.engine.protocol.messages import Code, Resume, Start, Update, Welcome
from rtvc.engine.protocol.refusals import Refusal
from rtvc.engine.protocol.streams import SequenceError
from rtvc.engine.server.metrics import Metrics
from rtvc.engine.server.pool_thread import Piece, Ticker
from rtvc.engine.server.session import Call
from rtvc.engine.server.uploads import Maker, Uploads
from rtvc.engine.server.voice_store import VoiceStore
from rtvc.engine.streams.capacity import Capacity
from rtvc.engine.streams.gate import Gate
from rtvc.engine.streams.pool import Member, Pool, PoolFullError
from rtvc.errors import DependencyError
from rtvc.voices.voice import Voice

if TYPE_CHECKING:
    from rtvc.engine.server.connection import Connection

T = TypeVar("T")

SWEEP_S = 0.25
"""Seconds between two looks for clients that are idle or gone."""
SPARE_S = 10.0
"""Seconds without audio after which a session gives its place to who waits for one."""
CONTROL_S = 5.0
"""Seconds within which the thread that starts and changes sessions must have answered."""

log = logging.getLogger("rtvc.serve")


class Service:
    """Use it as an asynchronous context.

    Attributes:
        call_type: what it makes of a session.
        proxies: addresses of those who forward clients to it, and whose word about a client's
            address counts.

    Args:
        backend: what runs the steps.
        store: the voices.
        maker: what makes a voice of an uploaded recording.
        limits: of the server.
        access: who may connect.
        capacity: sessions that the machine holds; None measures it.
        name: told to clients.
    """

    call_type: type[Call] = Call
    proxies: frozenset[str] = frozenset()

    def __init__(
        self,
        backend: Backend,
        store: VoiceStore,
        maker: Maker,
        limits: ServerLimits | None = None,
        access: Access | None = None,
        *,
        capacity: Capacity | None = None,
        name: str = "rtvc",
    ) -> None:
        self.limits = limits or ServerLimits()
        self.access, self.store, self.name = access or Access(), store, name
        self.metrics = Metrics()
        self.pool = Pool(backend, slots=self.limits.sessions, capacity=capacity)
        self.calls: dict[str, Call] = {}
        self.ended: dict[
            str, Call
        ] = {}  # all was sent, and may be on its way; they have no place in the pool any more
        self.connections: set[Connection] = set()
        self.failures = Failures(self.limits.failures_per_minute)
        self.draining = False
        self._by_member: dict[Member, Call] = {}
        self._control = ThreadPoolExecutor(1, "rtvc-control")
        self._stored = ThreadPoolExecutor(2, "rtvc-store")
        self._making = ThreadPoolExecutor(1, "rtvc-voices")
        self.uploads = Uploads(store, maker, self.limits, self._making)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ticker: Ticker | None = None
        self._coming: Counter[str] = (
            Counter()
        )  # sessions that are being made, by the address of their client
        self._probe: asyncio.Future[None] | None = None
        self._answered = 0.0  # when the control thread did something last, on the loop's clock
        self._gauges()

    def _gauges(self) -> None:
        watch = self.metrics.watch
        watch("rtvc_sessions", "sessions that run", lambda: len(self.calls))
        waiting = "sessions whose client was lost and may come back"
        watch(
            "rtvc_sessions_waiting",
            waiting,
            lambda: sum(call.connection is None for call in list(self.calls.values())),
        )
        watch("rtvc_sessions_limit", "sessions that this machine holds", lambda: self.most)
        watch("rtvc_connections", "open connections", lambda: len(self.connections))
        watch("rtvc_load", "share of a tick that steps take (p95)", lambda: self.pool.load)
        watch("rtvc_ready", "1 while new sessions are taken", lambda: self.ready)

    @property
    def most(self) -> int:
        """Sessions that it takes at once."""
        return min(self.limits.sessions, self.pool.capacity.rows)

    @property
    def places(self) -> int:
        """Sessions up to which new ones are taken."""
        return self.most

    @property
    def ready(self) -> bool:
        """Whether a new session would be taken."""
        return (
            not self.draining
            and self.healthy
            and len(self.calls) + self._coming.total() < self.places
        )

    @property
    def healthy(self) -> bool:
        """Whether the threads that sessions need do their work; only a restart helps if they do
        not."""
        ticks = self._ticker is not None and self._ticker.ticking
        return ticks and self.loop.time() - self._answered < CONTROL_S

    async def __aenter__(self) -> "Service":
        self.loop = asyncio.get_running_loop()
        self._answered = self.loop.time()
        self._ticker = Ticker(
            self.pool,
            self.metrics,
            lambda pieces: self._soon(self._deliver, pieces),
            lambda: self._soon(self._fail),
        )
        self._ticker.start()
        self.task(self._sweep())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._ticker is not None:
            await asyncio.to_thread(self._ticker.stop)
        for executor in (self._control, self._stored, self._making):
            executor.shutdown(cancel_futures=True)

    def welcome(self) -> Welcome:
        """What a client is told first."""
        backend = self.pool.backend
        return Welcome(
            server=self.name,
            formats=offered(),
            limits=self.limits.told(),
            chunk_ms=1000 * self.pool.tick_s,
            latency_ms=1000 * (backend.latency + backend.chunk) / backend.sample_rate,
        )

    def task(self, work: Any) -> "asyncio.Task[Any]":
        """Runs a coroutine until it ends or the service does."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def control(self, work: Callable[[], T]) -> T:
        """Does something short outside of the event loop, one thing after the other."""
        return await self.loop.run_in_executor(self._control, work)

    async def stored(self, work: Callable[[], T]) -> T:
        """Asks the store, which may take its time: no session waits for that."""
        return await self.loop.run_in_executor(self._stored, work)

    async def start(self, start: Start, address: str = "") -> Call:
        """A new session, which waits for its client from now on.

        Args:
            start: what the client asks for.
            address: of the client, which has a share of the places.

        Raises:
            Refusal: no place, no such voice or format, or the server is going down.
        """
        if not self.healthy:
            raise Refusal(
                Code.INTERNAL,
                "this server converts nothing any more",
                "try another one",
                fatal=True,
            )
        if self.draining:
            raise Refusal(
                Code.DRAINING,
                "this server is going down",
                "connect again: another one takes over",
                fatal=True,
            )
        if start.format not in offered():
            raise Refusal(
                Code.UNSUPPORTED,
                f"{start.format} is not spoken here",
                f"take one of {', '.join(offered())}",
            )
        rates = (start.sample_rate, start.output_rate or start.sample_rate)
        if start.format == "opus" and not set(rates) <= set(OPUS_RATES):
            raise Refusal(
                Code.UNSUPPORTED,
                f"Opus does not know {rates[0]} and {rates[1]} Hz",
                f"take one of {OPUS_RATES}",
            )
        # Not to be cancelled half-way with its client: a place that nobody knows of would never be
        # given back.
        starting = self.task(self._take_place(start, address))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(self._unwanted)
            raise

    async def _take_place(self, start: Start, address: str) -> Call:
        """Starts a session if there is a place for the address, or a session that has long been
        silent gives it one."""
        count = len(self.calls) + self._coming.total()
        own = sum(call.address == address for call in self.calls.values()) + self._coming[address]
        share, silent = self.limits.share(address, self.places), None
        if own >= share or count >= self.places:
            silent = self._silent(address if own >= share else None)
            if silent is None:
                message = (
                    f"{own} of the {share} sessions that your address may have run"
                    if own >= share
                    else (f"{count} sessions run, and this server takes {self.places}")
                )
                raise Refusal(Code.FULL, message, "try again later, or another server", fatal=True)
        self._coming[address] += 1
        try:
            if silent is not None:
                await self.dismiss(
                    silent,
                    Refusal(Code.IDLE, f"{SPARE_S:g} s without audio, and others wait", fatal=True),
                )
            call = await self._start(start)
            call.address = address
            return call
        finally:
            self._coming[address] -= 1
            if not self._coming[address]:
                del self._coming[address]

    def _silent(self, address: str | None) -> Call | None:
        """The session that has been silent for the longest time, and long enough to lose its place;
        of one address, or of any."""
        now = self.pool.clock()
        found = [
            call
            for call in self.calls.values()
            if address in (None, call.address) and call.silent(now) > SPARE_S
        ]
        return min(found, key=lambda call: call.spoke, default=None)

    async def _start(self, start: Start) -> Call:
        voice = await self.stored(functools.partial(self.store.choose, start.voice))
        member = await self.control(functools.partial(self._join, start, voice))
        call = self.call_type(member, start, voice.name, self.limits.resume_s, self.metrics)
        self.calls[call.id] = self._by_member[member] = call
        self.metrics.started.inc()
        return call

    def _join(self, start: Start, voice: Voice) -> Member:
        try:
            member = self.pool.join(
                voice,
                sample_rate=start.sample_rate,
                output_rate=start.output_rate,
                pitch=start.pitch,
                prosody=start.prosody,
                gate=Gate(self.pool.backend.sample_rate) if start.gate else None,
                max_lag=None if start.max_lag_ms is None else start.max_lag_ms / 1000,
            )
        except PoolFullError as error:
            raise Refusal(
                Code.FULL, str(error), "try again later, or another server", fatal=True
            ) from error
        except DependencyError as error:
            raise Refusal(
                Code.UNSUPPORTED, "the gate is not installed here", "start without it"
            ) from error
        member.line.wet = member.line.wet_now = start.wet
        return member

    async def change(self, call: Call, update: Update) -> None:
        """Changes a running session.

        Raises:
            Refusal: no such voice.
        """
        voice = (
            None
            if update.voice is None
            else await self.stored(functools.partial(self.store.choose, update.voice))
        )
        await self.control(functools.partial(self._change, call, update, voice))
        call.voice = call.voice if voice is None else voice.name

    def _change(self, call: Call, update: Update, voice: Voice | None) -> None:
        member = call.member
        if update.wet is not None:
            member.wet = call.wet = update.wet
        if update.pitch is not None:
            member.pitch = update.pitch
        if update.prosody is not None:
            member.prosody = update.prosody
        if voice is not None:
            member.swap(voice)

    async def fetch(self, resume: Resume) -> None:
        """Brings a session here that may be elsewhere, before it is resumed; a server alone has
        nowhere to look."""

    def resume(self, session: str, key: str, received: int) -> Call:
        """The session of a client that comes back, its output rewound.

        Raises:
            Refusal: no such session, or what the client wants is no longer there.
        """
        call = self.calls.get(session) or self.ended.get(session)
        if call is None or not call.is_key(key):
            raise Refusal(
                Code.UNKNOWN_SESSION, "there is no such session here", "start a new one", fatal=True
            )
        try:
            call.rewind(received)
        except SequenceError as error:
            raise Refusal(Code.TOO_LATE, str(error), "start a new session", fatal=True) from error
        self.metrics.resumed.inc()
        return call

    def _unwanted(self, starting: "asyncio.Task[Call]") -> None:
        """A session whose client was lost while it was made waits for it like any other."""
        if not starting.cancelled() and starting.exception() is None:
            self.abandon(starting.result())

    def abandon(self, call: Call) -> None:
        """Its client is lost: the session waits for it a while."""
        call.connection, call.left = None, self.pool.clock()

    async def finish(self, call: Call) -> None:
        """All of a session was sent: gives its place back, and keeps its output until `end`, for
        what was sent may get lost."""
        if self.calls.pop(call.id, None) is not None:
            self._by_member.pop(call.member, None)
            self.ended[call.id] = call
            if len(self.ended) > self.limits.sessions:
                await self.end(next(iter(self.ended.values())))
            await asyncio.shield(self.control(call.member.leave))

    async def end(self, call: Call) -> None:
        """Forgets a session, and gives its place back if it still has one."""
        self.ended.pop(call.id, None)
        if self.calls.pop(call.id, None) is not None:
            self._by_member.pop(call.member, None)
            await asyncio.shield(self.control(call.member.leave))

    async def drain(self) -> None:
        """Takes no more sessions, tells everybody, and waits until all have ended or `drain_s` is
        over."""
        self.draining = True
        log.info("draining sessions=%d seconds=%g", len(self.calls), self.limits.drain_s)
        for connection in list(self.connections):
            connection.drain(self.limits.drain_s)
        ends = self.loop.time() + self.limits.drain_s
        while (
            self.calls or any(call.acknowledges for call in self.ended.values())
        ) and self.loop.time() < ends:
            await asyncio.sleep(min(SWEEP_S, 0.05))
        for connection in list(self.connections):
            connection.expel(
                Refusal(
                    Code.DRAINING,
                    "the server went down",
                    "connect again: another one takes over",
                    fatal=True,
                )
            )

    def _soon(self, work: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed while the last tick ran
            self.loop.call_soon_threadsafe(work, *arguments)

    def _deliver(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            call = self._by_member.get(piece.member)
            if call is None:
                continue
            call.collect(piece.samples, piece.captured, piece.done)
            call.has_room(self.limits.queue_s)
            if call.connection is not None:
                call.connection.wake.set()

    def _fail(self) -> None:
        """The pool fails again and again: whoever has a session is told, and the places are given
        back."""
        for call in list(self.calls.values()):
            why = Refusal(Code.INTERNAL, "the conversion failed", "start a new session", fatal=True)
            self.task(self.dismiss(call, why))

    async def dismiss(self, call: Call, why: Refusal) -> None:
        """Ends a session although its client has not asked for it, and tells the client why."""
        connection, call.connection = call.connection, None
        if connection is not None:
            connection.call = None
            connection.expel(why)
        await self.end(call)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await self._look_around(self.pool.clock())
            except Exception:  # the next look must come
                self.metrics.crashes.inc()
                log.exception("looking for idle clients failed")

    async def _look_around(self, now: float) -> None:
        """Ends what nobody comes back for, or says nothing, and asks whether the control thread
        still answers."""
        for call in [*self.calls.values(), *self.ended.values()]:
            if call.connection is None and now - call.left > self.limits.resume_s:
                log.info("session=%s ended: its client did not come back", call.id)
                await self.end(call)
            elif call.silent(now) > self.limits.silent_s and call.id in self.calls:
                message = f"no audio came for {self.limits.silent_s:g} s"
                await self.dismiss(
                    call, Refusal(Code.IDLE, message, "start again when there is some", fatal=True)
                )
        for connection in list(self.connections):
            connection.check(now)
        if self._probe is None or self._probe.done():
            self._probe = self.loop.run_in_executor(self._control, lambda: None)
            self._probe.add_done_callback(self._control_answered)

    def _control_answered(self, probe: "asyncio.Future[None]") -> None:
        if not probe.cancelled() and probe.exception() is None:
            self._answered = self.loop.time()
