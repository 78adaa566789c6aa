"""What one client, and all of them together, may ask of a server."""

import time
from collections import OrderedDict
from collections.abc import Callable

from pydantic import BaseModel, ConfigDict, Field

from rtvc.engine.admission.access import is_loopback
from rtvc.engine.protocol.fields import LARGEST_FRAME
from rtvc.engine.protocol.messages import Limits

REMEMBERED = 4_096
"""Addresses whose failures are remembered."""


class ServerLimits(BaseModel):
    """Every bound of a server.

    Attributes:
        sessions: concurrent ones; the machine's measured capacity may allow fewer.
        sessions_per_address: of them, from one address; None is half of the places, and all of them
            for this machine's own addresses, behind which a proxy may be.
        connections: concurrent ones, with or without a session.
        connections_per_address: of them, from one address; behind a proxy all have the proxy's.
        handshakes: sockets that were accepted and not greeted yet, besides; a new one takes the
            place of the oldest.
        handshakes_per_address: of them, from one address; for a known proxy they do not count.
        calls: open ones over WebRTC; those with a known client count as connections, too.
        calls_coming: of them, whose client was not greeted yet.
        calls_coming_per_address: of those, from one address.
        upload_bytes: of one reference recording.
        upload_seconds: of its audio once decoded.
        uploads_per_minute: of one connection.
        uploads_at_once: on the way or being decoded, of all connections.
        uploads_per_address: of them, from one address.
        voices: in the store; more are not taken from clients.
        frames_per_second: of one connection; what comes faster waits.
        messages_per_second: control messages of one connection; what comes faster waits.
        mistakes: refused messages after which a connection is closed.
        queue_s: seconds of a session's input, or output, that may wait before its socket is no
            longer read.
        hello_s: seconds until the first message.
        idle_s: seconds without any message.
        silent_s: seconds of a session without audio, whatever else its client says.
        resume_s: seconds that a session waits for its client to come back.
        drain_s: seconds that sessions are given to end when the server goes down.
        upload_s: seconds that a file may be on its way.
        upload_rate: bytes a second that must come of it on average, from the fifth second on.
        decode_s: seconds that decoding an upload may take.
        failures_per_minute: wrong tokens of one address, after which it waits for each answer to
            another one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sessions: int = Field(default=32, ge=1)
    sessions_per_address: int | None = Field(default=None, ge=1)
    connections: int = Field(default=256, ge=1)
    connections_per_address: int = Field(default=128, ge=1)
    handshakes: int = Field(default=512, ge=1)
    handshakes_per_address: int = Field(default=256, ge=1)
    calls: int = Field(default=128, ge=1)
    calls_coming: int = Field(default=16, ge=1)
    calls_coming_per_address: int = Field(default=8, ge=1)
    upload_bytes: int = Field(default=8 << 20, ge=1)
    upload_seconds: float = Field(default=120.0, gt=0)
    uploads_per_minute: float = Field(default=6.0, gt=0)
    uploads_at_once: int = Field(default=4, ge=1)
    uploads_per_address: int = Field(default=2, ge=1)
    voices: int = Field(default=1_000, ge=0)
    frames_per_second: float = Field(default=500.0, gt=0)
    messages_per_second: float = Field(default=20.0, gt=0)
    mistakes: int = Field(default=100, ge=1)
    queue_s: float = Field(default=2.0, gt=0)
    hello_s: float = Field(default=5.0, gt=0)
    idle_s: float = Field(default=60.0, gt=0)
    silent_s: float = Field(default=60.0, gt=0)
    resume_s: float = Field(default=10.0, ge=0)
    drain_s: float = Field(default=30.0, ge=0)
    upload_s: float = Field(default=60.0, gt=0)
    upload_rate: float = Field(default=16_384.0, ge=0)
    decode_s: float = Field(default=10.0, gt=0)
    failures_per_minute: float = Field(default=20.0, gt=0)

    def share(self, address: str, places: int) -> int:
        """How many of so many places for sessions one address may have."""
        if self.sessions_per_address is not None:
            return self.sessions_per_address
        return places if is_loopback(address) else -(-places // 2)

    def told(self) -> Limits:
        """The part that clients are told."""
        return Limits(
            frame_bytes=LARGEST_FRAME,
            upload_bytes=self.upload_bytes,
            upload_seconds=self.upload_seconds,
            frames_per_second=self.frames_per_second,
            messages_per_second=self.messages_per_second,
            idle_ms=1000 * self.idle_s,
            resume_ms=1000 * self.resume_s,
        )


class Bucket:
    """A token bucket: `rate` a second on average, `burst` at once.

    Args:
        rate: tokens that come in a second.
        burst: tokens that it holds.
        clock: seconds.
    """

    def __init__(
        self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rate, self.burst, self.clock = rate, burst, clock
        self.level, self._at = burst, clock()

    def _fill(self) -> None:
        now = self.clock()
        self.level, self._at = min(self.burst, self.level + (now - self._at) * self.rate), now

    def wait(self) -> float:
        """Takes one token, on credit if need be; returns the seconds to wait for it."""
        self._fill()
        self.level -= 1
        return max(0.0, -self.level / self.rate)

    def take(self) -> bool:
        """Takes one token if there is one."""
        self._fill()
        if self.level < 1:
            return False
        self.level -= 1
        return True


class Failures:
    """Who has sent too many wrong tokens lately.

    Args:
        per_minute: that one address may send.
        clock: seconds.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute, self.clock = per_minute, clock
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    @property
    def remembered(self) -> int:
        """Addresses whose failures are remembered."""
        return len(self._buckets)

    def add(self, address: str) -> None:
        """One more of an address."""
        bucket = self._buckets.setdefault(
            address, Bucket(self.per_minute / 60, self.per_minute, self.clock)
        )
        bucket.take()
        self._buckets.move_to_end(address)
        if len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)

    def too_many(self, address: str) -> bool:
        """Whether an address should be turned away."""
        bucket = self._buckets.get(address)
        if bucket is None:
            return False
        bucket._fill()
        return bucket.level < 1
