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
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch

from rtvc.engine.fleet.session import Moment, MovingCall, Packed, pack
from rtvc.engine.fleet.vault import Copy, Replica
from rtvc.engine.protocol.messages import Code, Resume, Start, Update
from rtvc.engine.protocol.refusals import Refusal
from rtvc.engine.server.service import Service
from rtvc.engine.server.session import Call
from rtvc.engine.streams.gate import Gate
from rtvc.engine.streams.pool import Member, PoolFullError
from rtvc.engine.streams.session import Style
from rtvc.errors import EngineError

if TYPE_CHECKING:
    from rtvc.engine.server.connection import Connection

FREEZE_S = 2.0
"""A session whose state was not to be had for so long (its pool does not tick) is not saved this
time."""
LATER = "try again: another replica, or this one in a moment, takes the session up"

log = logging.getLogger("rtvc.serve")


class Shelf(Protocol):
    """A vault, from a replica's side; each method as that of `Vault`, and failing with any
    exception when the vault is gone."""

    async def save(self, owner: str, copies: Sequence[Copy]) -> list[str]: ...
    async def forget(self, owner: str, sessions: Sequence[str]) -> None: ...
    async def claim(self, session: str, digest: bytes, by: str) -> bytes | None: ...
    async def hand(self, owner: str, session: str, data: bytes | None) -> None: ...
    async def beat(self, replica: Replica, wait: float = ...) -> list[str]: ...
    async def leave(self, name: str) -> None: ...


class MovingService(Service):
    """A `Service` whose sessions survive it. Call `settle` before it is entered, and set `port`
    once it listens.

    Attributes:
        every: seconds between two saves of a session.
        spare: places that are kept for sessions that come from other replicas.
    """

    call_type = MovingCall
    every = 1.0
    spare = 0

    def settle(
        self,
        name: str,
        host: str,
        shelves: Sequence[Shelf],
        *,
        every: float = 1.0,
        spare: int | None = None,
    ) -> None:
        """Tells it who and where it is.

        Args:
            name: unique among the replicas.
            host: where others reach it.
            shelves: the vaults; every session has one of them.
            every: seconds between two saves.
            spare: places for sessions of other replicas; by default one in eight.
        """
        self.id, self.host, self.port, self.shelves, self.every = (
            name,
            host,
            0,
            list(shelves),
            every,
        )
        self.spare = self.most // 8 if spare is None else spare
        self.saved = 0  # times that sessions were saved

    @property
    def places(self) -> int:
        """As `Service.places`: some are kept for sessions of other replicas."""
        return max(0, self.most - self.spare)

    async def __aenter__(self) -> "MovingService":
        await super().__aenter__()
        self.task(self._keep_saving())
        self._listeners = [self.task(self._listen(shelf)) for shelf in self.shelves]
        return self

    async def _start(self, start: Start) -> Call:
        """As `Service._start`; the session is saved before its client hears of it."""
        call = await super()._start(start)
        await self._save([call])
        return call

    async def change(self, call: Call, update: Update) -> None:
        """As `Service.change`; the change is saved before its client hears of it."""
        await super().change(call, update)
        await self._save([call])

    async def finish(self, call: Call) -> None:
        """As `Service.finish`; what was saved goes on being kept for a client that will say that it
        has everything."""
        was_here = call.id in self.calls
        await super().finish(call)
        if was_here and not call.acknowledges:
            await self._forget(call)

    async def end(self, call: Call) -> None:
        """As `Service.end`."""
        was_here = call.id in self.calls or (call.id in self.ended and call.acknowledges)
        await super().end(call)
        if was_here:
            await self._forget(call)

    async def _forget(self, call: Call) -> None:
        """Has the vault forget a session, unless it went elsewhere."""
        if isinstance(call, MovingCall) and not call.moved:
            try:
                await self._shelf(call.id).forget(self.id, [call.id])
            except Exception as error:
                log.warning(
                    "session=%s could not be forgotten (%s): it is, some seconds later",
                    call.id,
                    type(error).__name__,
                )

    async def fetch(self, resume: Resume) -> None:
        """As `Service.fetch`.

        Raises:
            Refusal: not here, not now.
        """
        if self.draining:
            raise Refusal(Code.DRAINING, "this replica is going down", LATER, fatal=True)
        if resume.session in self.calls or resume.session in self.ended:
            return
        if len(self.calls) >= self.most:
            raise Refusal(
                Code.FULL, f"all {self.most} places of this replica are taken", LATER, fatal=True
            )
        try:
            data = await self._shelf(resume.session).claim(
                resume.session, digest(resume.key.get_secret_value()), self.id
            )
        except Exception as error:
            log.warning(
                "session=%s cannot be claimed now (%s)", resume.session, type(error).__name__
            )
            raise Refusal(
                Code.FULL, "where sessions are kept cannot be reached now", LATER, fatal=True
            ) from error
        if data is not None and resume.session not in self.calls:
            await asyncio.shield(self.task(self._adopt(data)))

    async def _adopt(self, data: bytes) -> None:
        """Takes up a session that another replica had."""
        try:
            packed = Packed(data)
            start = packed.start
            member = await self.control(functools.partial(self._place, start))
        except PoolFullError as error:
            raise Refusal(Code.FULL, str(error), LATER, fatal=True) from error
        except EngineError as error:
            raise Refusal(
                Code.TOO_LATE,
                "the saved session cannot be used here",
                "start a new session",
                fatal=True,
            ) from error
        if packed.session in self.calls:  # two connections brought the same session at once
            await self.control(member.leave)
            return
        call = MovingCall(member, start, "", self.limits.resume_s, self.metrics)
        packed.restore(call, self._wall(), self.pool.clock())
        self.calls[call.id] = self._by_member[member] = call  # before the line can have output
        try:
            await self.control(lambda: self._restore(member, packed.parcel(self._wall())))
        except EngineError as error:
            call.moved = True
            await self.end(call)
            advice = "start a new session"
            raise Refusal(
                Code.TOO_LATE, "the session was made by another model or chunk", advice, fatal=True
            ) from error
        log.info("session=%s taken up", call.id)

    def _place(self, start: Start) -> Member:
        neutral = Style(torch.zeros(128), torch.zeros(128))
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

    def _restore(self, member: Member, parcel: bytes) -> None:
        with self.pool.stepping:
            member.settle()
            self.pool.states[member.slot] = member.unparcel(parcel)[0]

    async def freeze(self, call: Call) -> bytes | None:
        """A session as it is between two steps, its output complete up to there; None when that is
        not to be had."""
        assert isinstance(call, MovingCall)
        member, done = call.member, asyncio.get_running_loop().create_future()
        moment = Moment(
            call.incoming.wanted,
            call.incoming.ended,
            call.samples_in,
            call.clock.offset,
            self._wall(),
        )

        def take() -> (
            None
        ):  # in the pool's thread, after the input that came so far and before the next step
            try:
                line = member.line
                self._soon(
                    give,
                    member.parcel(self.pool.states[member.slot : member.slot + 1]),
                    line.delivered,
                )
            except EngineError:  # it is behind, in the middle of a chunk
                self._soon(give, None, 0)

        def give(
            parcel: bytes | None, delivered: int
        ) -> None:  # in the event loop, behind all output up to there
            if not done.done():
                fits = parcel is not None and delivered == call.collected
                done.set_result(pack(call, parcel, moment) if fits and parcel is not None else None)

        if member.gone:
            return None
        member.apply(take)
        try:
            async with asyncio.timeout(FREEZE_S):
                found: bytes | None = await done
        except TimeoutError:
            return None
        return found

    async def hand_over(self) -> None:
        """Goes down without ending a session: tells the clients, saves everything, and closes their
        connections, which resume elsewhere."""
        self.draining = True
        log.info("handing over sessions=%d", len(self.calls))
        for shelf in self.shelves:  # from here on no client is led here
            await self._try(shelf.beat(self.report(), 0.0))
        for connection in list(self.connections):
            connection.drain(0.0)
        calls = [call for call in self.calls.values() if isinstance(call, MovingCall)]
        await self._save(calls)
        closing = []
        for call in calls:
            parted = self._detach(call)
            await self.end(call)
            if parted is not None:
                closing.append(parted.transport.close(1001, "draining"))
        await asyncio.gather(*closing, return_exceptions=True)
        for listener in self._listeners:
            listener.cancel()
        for shelf in self.shelves:
            await self._try(shelf.leave(self.id))

    def report(self) -> Replica:
        """What it says of itself."""
        return Replica(self.id, self.host, self.port, len(self.calls), self.most, self.draining)

    async def _keep_saving(self) -> None:
        while True:
            began = self.loop.time()
            await self._save(list(self.calls.values()))
            await asyncio.sleep(max(self.every / 4, self.every - (self.loop.time() - began)))

    async def _save(self, calls: Sequence[Call]) -> None:
        """Saves sessions; those that another replica has taken up are ended here."""
        batches: dict[int, list[Copy]] = {}
        for call in calls:
            data = await self.freeze(call) if call.id in self.calls else None
            if data is not None and call.id in self.calls:
                batches.setdefault(self._index(call.id), []).append(
                    Copy(call.id, digest(call.key), data)
                )
        for index, copies in batches.items():
            try:
                refused = await self.shelves[index].save(self.id, copies)
                self.saved += len(copies) - len(refused)
            except Exception as error:
                log.warning(
                    "%d sessions could not be saved (%s)", len(copies), type(error).__name__
                )
                continue
            for session in refused:
                log.warning("session=%s goes on at another replica", session)
                await self._give_up(session)

    async def _listen(self, shelf: Shelf) -> None:
        """Says that it is alive, and hands over what others claim."""
        while True:
            try:
                for session in await shelf.beat(self.report()):
                    call = self.calls.get(session)
                    data = None if call is None else await self.freeze(call)
                    await self._give_up(session)
                    await shelf.hand(self.id, session, data)
            except Exception as error:
                log.warning("the vault does not answer (%s)", type(error).__name__)
                await asyncio.sleep(0.2)

    async def _give_up(self, session: str) -> None:
        """A session goes on elsewhere."""
        call = self.calls.get(session)
        if not isinstance(call, MovingCall):
            return
        connection = self._detach(call)
        await self.end(call)
        if connection is not None:
            connection.expel(
                Refusal(Code.SUPERSEDED, "the session goes on over another connection", fatal=True)
            )

    def _detach(self, call: MovingCall) -> "Connection | None":
        """Parts a session that goes elsewhere from its connection: what still arrives is thrown
        away, for the client sends it again."""
        connection, call.connection, call.moved = call.connection, None, True
        if connection is not None:
            connection.call = None
        return connection

    def _index(self, session: str) -> int:
        return zlib.crc32(session.encode()) % len(self.shelves)

    def _shelf(self, session: str) -> Shelf:
        return self.shelves[self._index(session)]

    def _wall(self) -> float:
        """Seconds to add to the pool's clock to get the time of day."""
        return time.time() - self.pool.clock()

    async def _try(self, work: Any) -> None:
        try:
            await work
        except Exception as error:
            log.warning("the vault does not answer (%s)", type(error).__name__)


def digest(key: str) -> bytes:
    """What the vault knows of a session's key."""
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()
