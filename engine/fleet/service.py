"""A service among several: it saves its sessions where the others find them, and takes up those
that clients bring along.

A session belongs to the replica that its client's connection leads to, and stays there while the
connection lives. When a client comes back through another replica, that one claims the session:
from its owner as it is at that moment, or, when the owner is gone, as it was last saved.
"""

import asyncio
import functools
import hashlib
import logging
import time
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch

from rtvc.engine.fleet.session import FleetSession, Home, Moment, Packed, pack
from rtvc.engine.fleet.vault import Copy, Replica, Vault
from rtvc.engine.protocol.fields import Code
from rtvc.engine.protocol.messages import Resume, Start, Update
from rtvc.engine.protocol.refusals import Refusal
from rtvc.engine.server import reasons
from rtvc.engine.server.service import Service
from rtvc.engine.server.session import Listener, ServerSession
from rtvc.engine.streams.gate import Gate
from rtvc.engine.streams.pool import PoolFullError
from rtvc.engine.streams.pool_session import PoolSession, Progress
from rtvc.errors import EngineError
from rtvc.voices.voice import STYLE, Voice

FREEZE_S = 2.0
"""A session whose state was not to be had for so long (its pool does not tick) is not saved this
time."""
LATER = "try again: another replica, or this one in a moment, takes the session up"

log = logging.getLogger("rtvc.serve")


@dataclass(frozen=True)
class Membership:
    """Who a replica is among others.

    Attributes:
        name: unique among the replicas.
        host: where others reach it.
        vaults: where sessions are kept; every session has one of them.
        every: seconds between two saves of a session.
        spare: places that are kept for sessions that come from other replicas; None takes one in
            eight.
    """

    name: str
    host: str
    vaults: Sequence[Vault]
    every: float = 1.0
    spare: int | None = None


class FleetService(Service):
    """A `Service` whose sessions survive it. Set `port` once it listens.

    Args:
        arguments: of `Service`.
        membership: who it is.
        wall: the time of day in seconds, by which clocks of two machines are compared.
        settings: of `Service`.

    Attributes:
        port: where it listens; 0 while it does not.
        spare: places that are kept for sessions that come from other replicas.
        saved: times that sessions were saved.
    """

    session_type = FleetSession

    def __init__(
        self,
        *arguments: Any,
        membership: Membership,
        wall: Callable[[], float] = time.time,
        **settings: Any,
    ) -> None:
        super().__init__(*arguments, **settings)
        self.wall = wall
        self.id, self.host, self.port = membership.name, membership.host, 0
        self.vaults, self.every = list(membership.vaults), membership.every
        self.spare = self.most // 8 if membership.spare is None else membership.spare
        self.saved = 0

    @property
    def places(self) -> int:
        """Sessions up to which new ones are taken: some places are kept for those of other
        replicas."""
        return max(0, self.most - self.spare)

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self.workers.task(self._keep_saving())
        self._listeners = [self.workers.task(self._listen(vault)) for vault in self.vaults]
        return self

    async def _start(self, start: Start) -> ServerSession:
        """Starts a session, and saves it before its client hears of it."""
        session = await super()._start(start)
        await self.save([session])
        return session

    async def change(self, session: ServerSession, update: Update) -> None:
        """Changes a session, and saves it before its client hears of it."""
        await super().change(session, update)
        await self.save([session])

    async def finish(self, session: ServerSession) -> None:
        """Gives a session's place back; what was saved goes on being kept for a client that will
        say that it has everything."""
        was_here = session.id in self.sessions
        await super().finish(session)
        if was_here and not session.acknowledges:
            await self._forget(session)

    async def end(self, session: ServerSession) -> None:
        """Forgets a session, here and where it is kept."""
        was_here = session.id in self.sessions or (
            session.id in self.ended and session.acknowledges
        )
        await super().end(session)
        if was_here:
            await self._forget(session)

    async def _forget(self, session: ServerSession) -> None:
        """Has the vault forget a session, unless it went elsewhere."""
        if isinstance(session, FleetSession) and session.home is not Home.MOVED:
            try:
                await self._vault(session.id).forget(self.id, [session.id])
            except Exception as error:
                log.warning(
                    "session=%s could not be forgotten (%s): it is, some seconds later",
                    session.id,
                    type(error).__name__,
                )

    async def fetch(self, resume: Resume) -> None:
        """Brings a session here that another replica has, or had.

        Raises:
            Refusal: not here, not now.
        """
        if self.draining:
            raise Refusal(Code.DRAINING, "this replica is going down", LATER, fatal=True)
        if resume.session in self.sessions or resume.session in self.ended:
            return
        if len(self.sessions) >= self.most:
            raise reasons.full(f"all {self.most} places of this replica are taken", LATER)
        try:
            data = await self._vault(resume.session).claim(
                resume.session, digest(resume.key.get_secret_value()), self.id
            )
        except Exception as error:
            log.warning(
                "session=%s cannot be claimed now (%s)", resume.session, type(error).__name__
            )
            message = "where sessions are kept cannot be reached now"
            raise reasons.full(message, LATER) from error
        if data is not None and resume.session not in self.sessions:
            await asyncio.shield(self.workers.task(self._adopt(data)))

    async def _adopt(self, data: bytes) -> None:
        """Takes up a session that another replica had."""
        try:
            packed = Packed(data)
            start = packed.start
            pooled = await self.workers.control(functools.partial(self._place, start))
        except PoolFullError as error:
            raise reasons.full(str(error), LATER) from error
        except EngineError as error:
            raise reasons.too_late("the saved session cannot be used here") from error
        if packed.session in self.sessions:  # two connections brought the same session at once
            await self.workers.control(lambda: self.pool.leave(pooled))
            return
        session = FleetSession(pooled, start, "", self.limits.resume_s, self.metrics)
        packed.restore(session, self._wall(), self.pool.clock())
        # Before the pool can have output of it.
        self.sessions[session.id] = self._by_pooled[pooled] = session
        try:
            await self.workers.control(
                lambda: self.pool.restore(pooled, packed.pooled(self._wall()))
            )
        except EngineError as error:
            session.home = Home.MOVED
            await self.end(session)
            raise reasons.too_late("the session was made by another model or chunk") from error
        log.info("session=%s taken up", session.id)

    def _place(self, start: Start) -> PoolSession:
        neutral = Voice(torch.zeros(STYLE), torch.zeros(STYLE))
        rate = self.pool.backend.sample_rate
        lag = None if start.max_lag_ms is None else start.max_lag_ms / 1000
        gate = Gate(rate) if start.gate else None
        return self.pool.join(
            neutral,
            sample_rate=start.sample_rate,
            output_rate=start.output_rate,
            gate=gate,
            max_lag=lag,
        )

    async def freeze(self, session: ServerSession) -> bytes | None:
        """A session as it is between two steps, its output complete up to there; None when that is
        not to be had."""
        assert isinstance(session, FleetSession)
        pooled, frozen = session.pooled, asyncio.get_running_loop().create_future()
        incoming, offset = session.incoming, session.clock.offset
        moment = Moment(incoming.expected, incoming.ended, session.samples_in, offset, self._wall())

        def park() -> None:
            # In the pool's thread, after the input that came so far and before the next step.
            try:
                self.workers.in_loop(give, pooled.parked(), pooled.chunker.delivered)
            except EngineError:  # it is behind, in the middle of a chunk
                self.workers.in_loop(give, None, 0)

        def give(parked: bytes | None, delivered: int) -> None:
            # In the event loop, behind all output up to there.
            if not frozen.done():
                fits = parked is not None and delivered == session.collected
                frozen.set_result(pack(session, parked, moment) if fits and parked else None)

        if pooled.progress is Progress.LEFT:
            return None
        pooled.apply(park)
        try:
            async with asyncio.timeout(FREEZE_S):
                packed: bytes | None = await frozen
        except TimeoutError:
            return None
        return packed

    async def hand_over(self) -> None:
        """Goes down without ending a session: tells the clients, saves everything, and closes their
        connections, which resume elsewhere."""
        self.draining = True
        log.info("handing over sessions=%d", len(self.sessions))
        for vault in self.vaults:  # from here on no client is led here
            await self._try(vault.heartbeat(self.report(), 0.0))
        for connection in list(self.connections):
            connection.drain(0.0)
        sessions = [
            session for session in self.sessions.values() if isinstance(session, FleetSession)
        ]
        await self.save(sessions)
        closing = []
        for session in sessions:
            parted = self._detach(session)
            await self.end(session)
            if parted is not None:
                closing.append(parted.close(1001, "draining"))
        await asyncio.gather(*closing, return_exceptions=True)
        for listener in self._listeners:
            listener.cancel()
        for vault in self.vaults:
            await self._try(vault.deregister(self.id))

    def report(self) -> Replica:
        """What it says of itself."""
        return Replica(self.id, self.host, self.port, len(self.sessions), self.most, self.draining)

    async def _keep_saving(self) -> None:
        while True:
            began = self.workers.loop.time()
            await self.save(list(self.sessions.values()))
            took = self.workers.loop.time() - began
            await asyncio.sleep(max(self.every / 4, self.every - took))

    async def save(self, sessions: Sequence[ServerSession]) -> None:
        """Saves sessions; those that another replica has taken up are ended here."""
        batches: dict[int, list[Copy]] = {}
        for session in sessions:
            data = await self.freeze(session) if session.id in self.sessions else None
            if data is not None and session.id in self.sessions:
                batches.setdefault(self._index(session.id), []).append(
                    Copy(session.id, digest(session.key), data)
                )
        for index, copies in batches.items():
            try:
                foreign = await self.vaults[index].save(self.id, copies)
                self.saved += len(copies) - len(foreign)
            except Exception as error:
                log.warning(
                    "%d sessions could not be saved (%s)", len(copies), type(error).__name__
                )
                continue
            for name in foreign:
                log.warning("session=%s goes on at another replica", name)
                await self._give_up(name)

    async def _listen(self, vault: Vault) -> None:
        """Says that it is alive, and hands over what others claim."""
        while True:
            try:
                for name in await vault.heartbeat(self.report()):
                    session = self.sessions.get(name)
                    data = None if session is None else await self.freeze(session)
                    await self._give_up(name)
                    await vault.hand_over(self.id, name, data)
            except Exception as error:
                log.warning("the vault does not answer (%s)", type(error).__name__)
                await asyncio.sleep(0.2)

    async def _give_up(self, name: str) -> None:
        """A session goes on elsewhere."""
        session = self.sessions.get(name)
        if not isinstance(session, FleetSession):
            return
        connection = self._detach(session)
        await self.end(session)
        if connection is not None:
            connection.expel(reasons.superseded())

    def _detach(self, session: FleetSession) -> Listener | None:
        """Parts a session that goes elsewhere from its connection: what still arrives is thrown
        away, for the client sends it again."""
        session.home = Home.MOVED
        return session.detach()

    def _index(self, name: str) -> int:
        return zlib.crc32(name.encode()) % len(self.vaults)

    def _vault(self, name: str) -> Vault:
        return self.vaults[self._index(name)]

    def _wall(self) -> float:
        """Seconds to add to the pool's clock to get the time of day."""
        return self.wall() - self.pool.clock()

    async def _try(self, work: Awaitable[object]) -> None:
        try:
            await work
        except Exception as error:
            log.warning("the vault does not answer (%s)", type(error).__name__)


def digest(key: str) -> bytes:
    """What the vault knows of a session's key."""
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()
