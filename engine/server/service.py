"""Everything that the connections of one server share: the pool and its thread, the sessions, the
voices, the limits.

A service knows nothing of sockets: `Connection` talks to one over whatever transport it is given.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Callable
from typing import Self

from rtvc.engine.admission.access import Access
from rtvc.engine.admission.limits import Failures, ServerLimits
from rtvc.engine.backends.base import Backend
from rtvc.engine.protocol.fields import Code
from rtvc.engine.protocol.formats import offered
from rtvc.engine.protocol.messages import Resume, Start, Update, Welcome
from rtvc.engine.protocol.refusals import Refusal
from rtvc.engine.protocol.streams import SequenceError
from rtvc.engine.server import reasons
from rtvc.engine.server.metrics import Metrics
from rtvc.engine.server.places import SPARE_S, Places
from rtvc.engine.server.pool_thread import PoolThread
from rtvc.engine.server.session import Listener, ServerSession
from rtvc.engine.server.workers import Workers
from rtvc.engine.streams.capacity import Capacity
from rtvc.engine.streams.gate import Gate
from rtvc.engine.streams.pool import Piece, Pool, PoolFullError
from rtvc.engine.streams.pool_session import PoolSession
from rtvc.engine.voices.store import VoiceStore
from rtvc.engine.voices.uploads import Maker, Uploads
from rtvc.errors import DependencyError
from rtvc.voices.voice import Voice

SWEEP_S = 0.25
"""Seconds between two looks for clients that are idle or gone."""
log = logging.getLogger("rtvc.serve")


class Service:
    """Use it as an asynchronous context.

    Attributes:
        session_type: what it makes of a session.
        sessions: those that run, by name.
        ended: those that have no place in the pool any more, because all was sent; some of that may
            still be on its way.
        connections: those that are open.
        workers: threads and tasks beside the pool's.
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
        clock: seconds, for lag and patience.
    """

    session_type: type[ServerSession] = ServerSession
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
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.limits = limits or ServerLimits()
        self.access, self.store, self.name = access or Access(), store, name
        self.metrics = Metrics()
        self.pool = Pool(backend, slots=self.limits.sessions, capacity=capacity, clock=clock)
        self.sessions: dict[str, ServerSession] = {}
        self.ended: dict[str, ServerSession] = {}
        self.connections: set[Listener] = set()
        self.failures = Failures(self.limits.failures_per_minute)
        self.draining = False
        self._by_pooled: dict[PoolSession, ServerSession] = {}
        self.workers = Workers()
        self.uploads = Uploads(store, maker, self.limits, self.workers.making)
        self._pool_thread: PoolThread | None = None
        self._places = Places(self.sessions, self.limits)
        self._gauges()

    def _gauges(self) -> None:
        watch = self.metrics.watch
        watch("rtvc_sessions", "sessions that run", lambda: len(self.sessions))
        lost = "sessions whose client was lost and may come back"
        watch("rtvc_sessions_waiting", lost, self._count_lost)
        watch("rtvc_sessions_limit", "sessions that this machine holds", lambda: self.most)
        watch("rtvc_connections", "open connections", lambda: len(self.connections))
        watch("rtvc_load", "share of a tick that steps take (p95)", lambda: self.pool.load)
        watch("rtvc_ready", "1 while new sessions are taken", lambda: self.ready)

    def _count_lost(self) -> int:
        return sum(session.listener is None for session in list(self.sessions.values()))

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
        return not self.draining and self.healthy and self._places.taken < self.places

    @property
    def healthy(self) -> bool:
        """Whether the threads that sessions need do their work; if not, only a restart helps."""
        thread = self._pool_thread
        return thread is not None and thread.ticking and self.workers.answering

    async def __aenter__(self) -> Self:
        self.workers.start()
        self._pool_thread = PoolThread(
            self.pool,
            self.metrics,
            lambda pieces: self.workers.in_loop(self._deliver, pieces),
            lambda: self.workers.in_loop(self._fail),
        )
        self._pool_thread.start()
        self.workers.task(self._keep_sweeping())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.workers.end_tasks()
        if self._pool_thread is not None:
            await asyncio.to_thread(self._pool_thread.stop)
        self.workers.stop()

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

    async def start(self, start: Start, address: str = "") -> ServerSession:
        """A new session, which waits for its client from now on.

        Args:
            start: what the client asks for.
            address: of the client, which has a share of the places.

        Raises:
            Refusal: no place, no such voice or format, or the server is going down.
        """
        if not self.healthy:
            raise reasons.broken("this server converts nothing any more", "try another one")
        if self.draining:
            raise reasons.draining()
        reasons.check_format(start)
        # Not to be cancelled half-way with its client: a place that nobody knows of would never be
        # given back.
        starting = self.workers.task(self._take_place(start, address))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(self._abandon_started)
            raise

    async def _take_place(self, start: Start, address: str) -> ServerSession:
        """Starts a session if the address has a place, or one that was long silent gives way."""
        silent = self._places.displaced(address, self.places, self.pool.clock())
        with self._places.coming(address):
            if silent is not None:
                message = f"{SPARE_S:g} s without audio, and others wait"
                await self.dismiss(silent, Refusal(Code.IDLE, message, fatal=True))
            session = await self._start(start)
            session.address = address
            return session

    async def _start(self, start: Start) -> ServerSession:
        voice = await self.workers.stored(functools.partial(self.store.choose, start.voice))
        pooled = await self.workers.control(functools.partial(self._join, start, voice))
        session = self.session_type(pooled, start, voice.name, self.limits.resume_s, self.metrics)
        self.sessions[session.id] = self._by_pooled[pooled] = session
        self.metrics.started.inc()
        return session

    def _join(self, start: Start, voice: Voice) -> PoolSession:
        try:
            return self.pool.join(
                voice,
                sample_rate=start.sample_rate,
                output_rate=start.output_rate,
                pitch=start.pitch,
                prosody=start.prosody,
                wet=start.wet,
                gate=Gate(self.pool.backend.sample_rate) if start.gate else None,
                max_lag=None if start.max_lag_ms is None else start.max_lag_ms / 1000,
            )
        except PoolFullError as error:
            raise reasons.full(str(error)) from error
        except DependencyError as error:
            message = "the gate is not installed here"
            raise Refusal(Code.UNSUPPORTED, message, "start without it") from error

    async def change(self, session: ServerSession, update: Update) -> None:
        """Changes a running session.

        Raises:
            Refusal: no such voice.
        """
        voice: Voice | None = None
        if update.voice is not None:
            choose = functools.partial(self.store.choose, update.voice)
            voice = await self.workers.stored(choose)
        await self.workers.control(functools.partial(self._change, session, update, voice))
        session.voice = session.voice if voice is None else voice.name

    def _change(self, session: ServerSession, update: Update, voice: Voice | None) -> None:
        pooled = session.pooled
        if update.wet is not None:
            pooled.wet = session.wet = update.wet
        if update.pitch is not None:
            pooled.pitch = update.pitch
        if update.prosody is not None:
            pooled.prosody = update.prosody
        if voice is not None:
            pooled.swap(voice)

    async def fetch(self, resume: Resume) -> None:
        """Brings a session here that may be elsewhere; a server alone has nowhere to look."""

    def resume(self, name: str, key: str, received: int) -> ServerSession:
        """The session of a client that comes back, its output rewound.

        Raises:
            Refusal: no such session, or what the client wants is no longer there.
        """
        session = self.sessions.get(name) or self.ended.get(name)
        if session is None or not session.is_key(key):
            message = "there is no such session here"
            raise Refusal(Code.UNKNOWN_SESSION, message, "start a new one", fatal=True)
        try:
            session.rewind(received)
        except SequenceError as error:
            raise reasons.too_late(str(error)) from error
        self.metrics.resumed.inc()
        return session

    def _abandon_started(self, starting: "asyncio.Task[ServerSession]") -> None:
        """A session whose client was lost while it was made waits for it like any other."""
        if not starting.cancelled() and starting.exception() is None:
            self.abandon(starting.result())

    def abandon(self, session: ServerSession) -> None:
        """Its client is lost: the session waits for it a while."""
        session.listener, session.left = None, self.pool.clock()

    async def finish(self, session: ServerSession) -> None:
        """All of a session was sent: gives its place back, and keeps its output until `end`, for
        what was sent may get lost."""
        if self.sessions.pop(session.id, None) is not None:
            self._by_pooled.pop(session.pooled, None)
            self.ended[session.id] = session
            if len(self.ended) > self.limits.sessions:
                await self.end(next(iter(self.ended.values())))
            await asyncio.shield(self.workers.control(lambda: self.pool.leave(session.pooled)))

    async def end(self, session: ServerSession) -> None:
        """Forgets a session, and gives its place back if it still has one."""
        self.ended.pop(session.id, None)
        if self.sessions.pop(session.id, None) is not None:
            self._by_pooled.pop(session.pooled, None)
            await asyncio.shield(self.workers.control(lambda: self.pool.leave(session.pooled)))

    async def drain(self) -> None:
        """Takes no more sessions, tells everybody, and waits until all have ended or `drain_s` is
        over."""
        self.draining = True
        log.info("draining sessions=%d seconds=%g", len(self.sessions), self.limits.drain_s)
        for connection in list(self.connections):
            connection.drain(self.limits.drain_s)
        ends = self.workers.loop.time() + self.limits.drain_s
        while self.workers.loop.time() < ends and (
            self.sessions or any(session.acknowledges for session in self.ended.values())
        ):
            await asyncio.sleep(min(SWEEP_S, 0.05))
        for connection in list(self.connections):
            connection.expel(reasons.draining("the server went down"))

    def _deliver(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            session = self._by_pooled.get(piece.session)
            if session is None:
                continue
            session.collect(piece.samples, piece.captured, piece.done)
            session.has_room(self.limits.queue_s)
            if session.listener is not None:
                session.listener.wake()

    def _fail(self) -> None:
        """The pool fails again and again: whoever has a session is told, and loses it."""
        for session in list(self.sessions.values()):
            why = reasons.broken("the conversion failed", "start a new session")
            self.workers.task(self.dismiss(session, why))

    async def dismiss(self, session: ServerSession, why: Refusal) -> None:
        """Ends a session although its client has not asked for it, and tells the client why."""
        listener = session.detach()
        if listener is not None:
            listener.expel(why)
        await self.end(session)

    async def _keep_sweeping(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await self.sweep(self.pool.clock())
            except Exception:  # the next look must come
                self.metrics.crashes.inc()
                log.exception("looking for idle clients failed")

    async def sweep(self, now: float) -> None:
        """Ends what nobody comes back for, or says nothing; asks the control thread to answer."""
        for session in [*self.sessions.values(), *self.ended.values()]:
            if session.listener is None and now - session.left > self.limits.resume_s:
                log.info("session=%s ended: its client did not come back", session.id)
                await self.end(session)
            elif session.silent(now) > self.limits.silent_s and session.id in self.sessions:
                message = f"no audio came for {self.limits.silent_s:g} s"
                why = Refusal(Code.IDLE, message, "start again when there is some", fatal=True)
                await self.dismiss(session, why)
        for connection in list(self.connections):
            connection.check(now)
        self.workers.probe()
