"""One session as the server keeps it: a place in the pool, audio on its way in and out, and what it
takes to resume."""

import asyncio
import hmac
import secrets
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rtvc.engine.protocol.client_clock import Arrivals, ClientClock
from rtvc.engine.protocol.messages import Start
from rtvc.engine.protocol.streams import Audio, Incoming, Outgoing
from rtvc.engine.server.metrics import Metrics
from rtvc.engine.streams.backlog import Backlog
from rtvc.engine.streams.pool import Member

if TYPE_CHECKING:
    from rtvc.engine.server.connection import Connection

Samples = NDArray[np.float32]

FRAME_S = 0.1
"""Seconds of audio in the longest frame that is sent."""
PATIENCE_S = 30.0
"""Seconds that a new session has until its client takes it, on top of those that lost clients
have."""
UNACKNOWLEDGED = 2 << 20
"""Bytes of sent audio that are kept for a client which acknowledges what it has, even if they last
longer than `keep`."""
RECENT = 4_096
"""Frames whose lag is remembered."""


class Call:
    """A session. Everything here runs on the event loop, except for what `Member` does.

    Args:
        member: its place in the pool.
        start: what the client asked for.
        voice: name of its voice, for people.
        keep: seconds of sent audio that are kept for a client that comes back.
        metrics: of the server.
    """

    def __init__(
        self, member: Member, start: Start, voice: str, keep: float, metrics: Metrics
    ) -> None:
        self.id, self.key = secrets.token_urlsafe(9), secrets.token_urlsafe(24)
        self.member, self.start, self.voice, self.metrics = member, start, voice, metrics
        self.wet = start.wet
        self.rate_in, self.rate_out = start.sample_rate, start.output_rate or start.sample_rate
        self.incoming = Incoming(start.format, self.rate_in)
        self.outgoing = Outgoing(start.format, self.rate_out, keep)
        tick = member.pool.tick_s
        nominal = member.latency + tick
        limit = None if start.max_lag_ms is None else nominal + start.max_lag_ms / 1000
        self.waiting = Backlog(self.rate_out, nominal=nominal, limit=limit)
        self.clock, self.arrivals, self.lags = (
            ClientClock(),
            Arrivals(self.rate_in),
            deque[float](maxlen=RECENT),
        )
        self.again: deque[bytes] = deque()
        self.samples_in = self.samples_out = 0
        self.ended = self.finished = False  # all output is here; all of it was sent
        self.dropped_in = self.late = self.resets = 0
        self.gap = self.acknowledges = False
        self.stalled = False  # what waits is old because its client did not take it
        self.connection: Connection | None = None
        self.left = member.pool.clock() + PATIENCE_S  # when its client was lost
        self.address, self.spoke = "", member.pool.clock()  # of its client; when it last sent audio
        self.room = asyncio.Event()
        self.room.set()

    def is_key(self, key: str) -> bool:
        """Compares in constant time."""
        return hmac.compare_digest(key.encode("utf-8", "replace"), self.key.encode())

    def attach(self, connection: "Connection", acknowledges: bool) -> None:
        """Its client is there; `acknowledges`: and says what it has."""
        self.connection, self.acknowledges, self.address = (
            connection,
            acknowledges,
            connection.transport.address,
        )
        self.outgoing.limit = UNACKNOWLEDGED if acknowledges else 0
        self.stalled = self.outgoing.sequence > 0

    def silent(self, now: float) -> float:
        """Seconds for which its client could have sent audio, and did not."""
        listening = self.connection is not None and self.room.is_set() and not self.incoming.ended
        return now - self.spoke if listening else 0.0

    def feed(self, audio: Audio) -> None:
        """Audio from the client."""
        count = len(audio.samples)
        if count:
            now = self.spoke = self.member.pool.clock()
            captured = self.clock.arrived(audio.timestamp / 1e6, count / self.rate_in, now)
            self.arrivals.arrived(self.samples_in, count, now)
            self.member.push(audio.samples, captured=captured, arrived=now)
            self.samples_in += count
        self.metrics.frames_in.inc()

    def collect(self, samples: Samples, captured: float, done: bool) -> None:
        """Output of the pool, whose end was captured at `captured`."""
        if len(samples):
            tail = self.member.line.end is not None and len(
                self.waiting
            )  # its end is padding that nobody captured
            self.waiting.append(samples, None if tail else captured - len(samples) / self.rate_out)
        self._trim()
        self.ended |= done
        self._note_losses()

    def has_room(self, limit: float) -> bool:
        """Whether less than `limit` seconds of input and of output wait; `room` is set or cleared
        accordingly."""
        room = self.ended or (self.queued < limit and self.waiting.seconds < limit)
        if room:
            self.room.set()
        else:
            self.room.clear()
        return room

    @property
    def queued(self) -> float:
        """Seconds of input that wait for the model."""
        line = self.member.line
        return max(0.0, self.samples_in - line.entry.received) / self.rate_in + line.backlog.seconds

    @property
    def dropped(self) -> float:
        """Seconds of audio that were dropped because they were stale."""
        return self.dropped_in / self.member.line.rate + self.waiting.dropped / self.rate_out

    def rewind(self, received: int) -> None:
        """Sends again from frame `received` on, before anything new.

        Raises:
            SequenceError: it is no longer kept.
        """
        self.again = deque(self.outgoing.again(received))

    def frame(self, silence: bool) -> bytes | None:
        """The next frame to send, or None when there is none yet; `silence`: the client understands
        silent frames."""
        if self.again:
            return self.again.popleft()
        if self.finished:
            return None
        self._trim()
        first = (
            self.waiting.taken / self.rate_out + self.dropped_in / self.member.line.rate
        ) * self.rate_in
        samples, captured = self._take()
        if samples is None:
            self.stalled = False
            return None
        now = self.member.pool.clock()
        self.finished = self.ended and not len(self.waiting)
        quiet = silence and not samples.any()
        data = self.outgoing.frame(
            samples, self.clock.back(captured), end=self.finished, dropped=self.gap, silence=quiet
        )
        self.gap = False
        self.samples_out += len(samples)
        if len(samples):
            self.lags.append(now - captured)
            age = self.arrivals.age(first, now)
            if age is not None and not self.stalled:
                self.metrics.lag.observe(age)
        self.metrics.frames_out.inc()
        return data

    def totals(self) -> dict[str, Any]:
        """The fields of `Totals`."""
        p50, p95, p99 = (
            np.percentile(self.lags, [50, 95, 99]).tolist() if self.lags else (0.0, 0.0, 0.0)
        )
        return {
            "frames_in": self.incoming.wanted,
            "frames_out": self.outgoing.sequence,
            "samples_in": self.samples_in,
            "samples_out": self.samples_out,
            "dropped_ms": round(1000 * self.dropped, 3),
            "xruns": self.member.late,
            "lag_p50_ms": round(1000 * p50, 2),
            "lag_p95_ms": round(1000 * p95, 2),
            "lag_p99_ms": round(1000 * p99, 2),
        }

    def _take(self) -> tuple[Samples | None, float]:
        """Samples for one frame, and when the first was captured; Opus packets are always full."""
        count, block = len(self.waiting), self.outgoing.codec.block
        if (count < (block or 1) and not self.ended) or (block and not count and not self.ended):
            return None, 0.0
        captured = self.waiting.captured()
        samples = self.waiting.take(min(count, block or int(FRAME_S * self.rate_out)))
        if block and 0 < len(samples) < block:
            samples = np.concatenate([samples, np.zeros(block - len(samples), np.float32)])
        return samples, captured

    def _trim(self) -> None:
        before = self.waiting.dropped
        self.waiting.trim(self.member.pool.clock())
        lost = self.waiting.dropped - before
        if lost:
            self.gap = True
            self.metrics.dropped.inc(lost / self.rate_out)

    def _note_losses(self) -> None:
        """Passes on what the pool dropped or did too late since the last time."""
        lost, late = (
            self.member.line.backlog.dropped - self.dropped_in,
            self.member.late - self.late,
        )
        if lost > 0:
            self.gap = True
            self.dropped_in += lost
            self.metrics.dropped.inc(lost / self.member.line.rate)
        if late > 0:
            self.late += late
            self.metrics.xruns.inc(late)
        resets = self.member.resets - self.resets
        if resets > 0:
            self.resets += resets
            self.metrics.resets.inc(resets)
