"""Who may have a session: a share of the places for every address, and who has long been silent
gives way."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rtvc.engine.admission.limits import ServerLimits
from rtvc.engine.server import reasons
from rtvc.engine.server.session import ServerSession

SPARE_S = 10.0
"""Seconds without audio after which a session gives its place to who waits for one."""


class Places:
    """The places for sessions, those that are being made included.

    Args:
        sessions: those that run, by name.
        limits: of the server.
    """

    def __init__(self, sessions: Mapping[str, ServerSession], limits: ServerLimits) -> None:
        self.sessions, self.limits = sessions, limits
        self._coming: Counter[str] = Counter()  # by the address of their client

    @property
    def taken(self) -> int:
        """Sessions that run or are being made."""
        return len(self.sessions) + self._coming.total()

    def displaced(self, address: str, places: int, now: float) -> ServerSession | None:
        """The session that one more of an address takes the place of; None when there is room.

        Args:
            address: of the client.
            places: that there are.
            now: seconds of the sessions' clock.

        Raises:
            Refusal: there is no place, and nobody has been silent for long enough.
        """
        own = sum(session.address == address for session in self.sessions.values())
        own += self._coming[address]
        share = self.limits.share(address, places)
        if own < share and self.taken < places:
            return None
        silent = self._silent(address if own >= share else None, now)
        if silent is None and own >= share:
            raise reasons.full(f"{own} of the {share} sessions that your address may have run")
        if silent is None:
            raise reasons.full(f"{self.taken} sessions run, and this server takes {places}")
        return silent

    @contextmanager
    def coming(self, address: str) -> Iterator[None]:
        """A session of that address is being made."""
        self._coming[address] += 1
        try:
            yield
        finally:
            self._coming[address] -= 1
            if not self._coming[address]:
                del self._coming[address]

    def _silent(self, address: str | None, now: float) -> ServerSession | None:
        """The session that has been silent for the longest time, and long enough; of one address,
        or of any."""
        candidates = [
            session
            for session in self.sessions.values()
            if address in (None, session.address) and session.silent(now) > SPARE_S
        ]
        return min(candidates, key=lambda session: session.spoke, default=None)
