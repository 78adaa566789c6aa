"""Where the replicas of one service leave their sessions and find each other's: one object that
outlives them all.

It runs as an actor, and is a plain asynchronous class so that it can be tested without one. It
holds copies only: if it is lost, every replica fills it again within one interval of saving, and no
session notices.
"""

import asyncio
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

BEAT_S = 0.25
"""Seconds that a replica's beat waits here for something to do."""
ALIVE_S = 1.0
"""Seconds without a beat after which nothing is asked of a replica any more."""
CLAIM_S = 0.5
"""Seconds that the owner of a session is given to hand it over, before its last saved copy has to
do."""
YOUNG_S = 3.0
"""By default, replicas that a lost vault had known have saved their sessions again by then."""


@dataclass(frozen=True)
class Replica:
    """What a replica says of itself.

    Attributes:
        name: unique.
        host: where it listens.
        port: where it listens.
        sessions: that it has.
        places: sessions that it could have.
        draining: it goes down.
    """

    name: str
    host: str
    port: int
    sessions: int
    places: int
    draining: bool


@dataclass(frozen=True)
class Copy:
    """A session to be kept.

    Attributes:
        session: its name.
        digest: of its key: who claims it must know the key, who reads the vault's log need not.
        data: what `pack` wrote.
    """

    session: str
    digest: bytes
    data: bytes


@dataclass
class _Kept:
    copy: Copy
    owner: str
    at: float


@dataclass
class _Seen:
    replica: Replica
    at: float
    asked: list[str] = field(default_factory=list)
    ring: asyncio.Event = field(default_factory=asyncio.Event)


class Vault:
    """Sessions by name, and the replicas that are alive. Replicas call it alike in one process and
    as an actor (`remote_vault`); there, any call may fail.

    Args:
        keep: seconds after its last save for which a session is kept.
        most: bytes above which the sessions saved longest ago are let go: they run on, but would
            not survive their replica.
        young: seconds after its start in which it cannot know that a session does not exist.
        clock: seconds.
    """

    def __init__(
        self,
        keep: float = 15.0,
        most: int = 1 << 30,
        clock: Callable[[], float] = time.monotonic,
        young: float = YOUNG_S,
    ) -> None:
        self.keep, self.most, self.clock, self.young, self.bytes = keep, most, clock, young, 0
        self._kept: OrderedDict[str, _Kept] = OrderedDict()  # by the time of the last save
        self._seen: dict[str, _Seen] = {}
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._began = clock()

    @property
    def sessions(self) -> tuple[str, ...]:
        """The names of those that are kept, the one saved longest ago first."""
        return tuple(self._kept)

    async def save(self, owner: str, copies: Sequence[Copy]) -> list[str]:
        """Keeps sessions; gives those that now belong to another replica, and were not kept."""
        foreign = list[str]()
        for copy in copies:
            known = self._kept.get(copy.session)
            if known is not None and known.owner != owner:
                foreign.append(copy.session)
            else:
                self._put(copy, owner)
        return foreign

    async def forget(self, owner: str, sessions: Sequence[str]) -> None:
        """Sessions that have ended."""
        for session in sessions:
            known = self._kept.get(session)
            if known is not None and known.owner == owner:
                self._drop(session)

    async def claim(self, session: str, digest: bytes, by: str) -> bytes | None:
        """A session for replica `by`, which owns it from now on; None if there is none with such a
        key.

        Raises:
            LookupError: it is too early to say.
        """
        self._expire()
        kept = self._kept.get(session)
        if kept is None and self.clock() - self._began < self.young:
            raise LookupError("this vault has just begun to listen")
        if kept is None or not hmac.compare_digest(kept.copy.digest, digest):
            return None
        if kept.owner != by and self._alive(kept.owner):
            await self._ask(kept.owner, session)
            kept = self._kept.get(session)
            if kept is None:  # it ended meanwhile
                return None
        kept.owner, kept.at = by, self.clock()
        self._kept.move_to_end(session)
        return kept.copy.data

    async def hand_over(self, owner: str, session: str, data: bytes | None) -> None:
        """The owner's answer to a claim: the session as it is now, or None if the saved one has to
        do."""
        known = self._kept.get(session)
        if known is not None and known.owner == owner and data is not None:
            self._put(Copy(session, known.copy.digest, data), owner)
        waiting = self._waiting.get(session)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    async def heartbeat(self, replica: Replica, wait: float = BEAT_S) -> list[str]:
        """A replica is alive; gives the sessions that others claim of it, as soon as there are any,
        or after `wait` seconds."""
        seen = self._seen.get(replica.name)
        if seen is None:
            seen = self._seen[replica.name] = _Seen(replica, self.clock())
        seen.replica, seen.at = replica, self.clock()
        if not seen.asked:
            try:
                async with asyncio.timeout(wait):
                    await seen.ring.wait()
            except TimeoutError:
                pass
        seen.ring.clear()
        asked, seen.asked = seen.asked, []
        return asked

    async def replicas(self) -> list[Replica]:
        """Those that are alive and listen, by name."""
        now = self.clock()
        self._seen = {name: seen for name, seen in self._seen.items() if now - seen.at <= self.keep}
        return sorted(
            (
                seen.replica
                for name, seen in self._seen.items()
                if seen.replica.port and self._alive(name)
            ),
            key=lambda replica: replica.name,
        )

    async def deregister(self, name: str) -> None:
        """A replica goes down: nothing is asked of it any more."""
        self._seen.pop(name, None)

    def _alive(self, name: str) -> bool:
        seen = self._seen.get(name)
        return seen is not None and self.clock() - seen.at <= BEAT_S + ALIVE_S

    async def _ask(self, owner: str, session: str) -> None:
        seen = self._seen[owner]
        waiting = self._waiting.get(session)
        if waiting is None:
            waiting = self._waiting[session] = asyncio.get_running_loop().create_future()
            seen.asked.append(session)
            seen.ring.set()
        try:
            async with asyncio.timeout(CLAIM_S):
                await asyncio.shield(waiting)
        except TimeoutError:
            pass
        finally:
            self._waiting.pop(session, None)

    def _put(self, copy: Copy, owner: str) -> None:
        self._drop(copy.session)
        self._kept[copy.session] = _Kept(copy, owner, self.clock())
        self.bytes += len(copy.data)
        self._expire()
        while self.bytes > self.most and len(self._kept) > 1:
            self._drop(next(iter(self._kept)))

    def _drop(self, session: str) -> None:
        kept = self._kept.pop(session, None)
        if kept is not None:
            self.bytes -= len(kept.copy.data)

    def _expire(self) -> None:
        now = self.clock()
        while self._kept and now - next(iter(self._kept.values())).at > self.keep:
            self._drop(next(iter(self._kept)))
