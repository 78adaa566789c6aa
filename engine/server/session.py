"""One session as the server keeps it: a place in the pool, audio on its way in and out, and what it
takes to resume."""

import asyncio
import hmac
import secrets
from collections import deque
from enum import Enum
from typing import Any, Protocol

import numpy as np

from rtvc.audio.samples import Samples
from rtvc.engine.protocol.client_clock import Arrivals, ClientClock
from rtvc.engine.protocol.messages import Start
from rtvc.engine.protocol.refusals import Refusal
from rtvc.engine.protocol.streams import Audio, Incoming, Outgoing
from rtvc.engine.server.metrics import Metrics
from rtvc.engine.streams.backlog import Backlog
from rtvc.engine.streams.pool_session import PoolSession
from rtvc.percentiles import percentiles

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


class Output(Enum):
    """How far a session's output is."""

    COMING = "more of it is to come"
    COMPLETE = "all of it is here"
    SENT = "all of it was sent"


class Listener(Protocol):
    """Where a session's output goes: the connection of its client, seen from below."""

    @property
    def address(self) -> str:
        """Of the client."""
        ...

    @property
    def greeted(self) -> bool:
        """Whether the client is known."""
        ...

    def wake(self) -> None:
        """There is something to send."""
        ...

    def detach(self, session: "ServerSession") -> None:
        """A session does not go on here: what still arrives for it is thrown away."""
        ...

    def expel(self, why: Refusal) -> None:
        """Tells the client why, and closes."""
        ...

    def drain(self, seconds: float) -> None:
        """The server goes down within so many seconds."""
        ...

    def check(self, now: float) -> None:
        """Expels a client that has been silent for too long."""
        ...

    async def close(self, code: int, reason: str) -> None:
        """Closes at once."""
        ...


class ServerSession:
    """A session as a server keeps it. Everything here runs on the event loop, except for what the
    pool does with `pooled`.

    Args:
        pooled: the session in the pool, which converts.
        start: what the client asked for.
        voice: name of its voice, for people.
        keep: seconds of sent audio that are kept for a client that comes back.
        metrics: of the server.

    Attributes:
        listener: where its client is; None while that is lost.
        output: how far its output is.
        again: frames to send again before anything new.
        gap: audio before the next frame was dropped.
        acknowledges: its client says what it has.
        stalled: what waits is old because its client did not take it.
        left: when its client was lost.
        spoke: when its client last sent audio.
        control: who knows it may change this session from elsewhere.
        room: set while there is room for more input.
    """

    def __init__(
        self, pooled: PoolSession, start: Start, voice: str, keep: float, metrics: Metrics
    ) -> None:
        self.id, self.key = secrets.token_urlsafe(9), secrets.token_urlsafe(24)
        self.pooled, self.start, self.voice, self.metrics = pooled, start, voice, metrics
        self.wet = start.wet
        self.rate_in, self.rate_out = start.sample_rate, start.output_rate or start.sample_rate
        self.incoming = Incoming(start.format, self.rate_in)
        self.outgoing = Outgoing(start.format, self.rate_out, keep)
        nominal = pooled.latency + pooled.tick_s
        limit = None if start.max_lag_ms is None else nominal + start.max_lag_ms / 1000
        self.waiting = Backlog(self.rate_out, nominal=nominal, limit=limit)
        self.clock, self.arrivals = ClientClock(), Arrivals(self.rate_in)
        self.lags = deque[float](maxlen=RECENT)
        self.again: deque[bytes] = deque()
        self.samples_in = self.samples_out = 0
        self.output = Output.COMING
        self.dropped_in = self.late = self.resets = 0
        self.gap = self.acknowledges = self.stalled = False
        self.listener: Listener | None = None
        self.address = ""
        self.control: str | None = None
        self.spoke = pooled.clock()
        self.left = self.spoke + PATIENCE_S
        self.room = asyncio.Event()
        self.room.set()

    def is_key(self, key: str) -> bool:
        """Compares in constant time."""
        return hmac.compare_digest(key.encode("utf-8", "replace"), self.key.encode())

    def is_control(self, secret: str) -> bool:
        """Compares in constant time."""
        return self.control is not None and hmac.compare_digest(
            secret.encode("utf-8", "replace"), self.control.encode("utf-8", "replace")
        )

    def controls(self) -> dict[str, Any]:
        """What can be changed, as it is now: the fields of `Updated`."""
        return {
            "voice": self.voice,
            "pitch": self.pooled.pitch,
            "prosody": self.pooled.prosody,
            "wet": self.wet,
        }

    def attach(self, listener: Listener, acknowledges: bool) -> None:
        """Its client is there; `acknowledges`: and says what it has."""
        self.listener, self.acknowledges = listener, acknowledges
        self.address = listener.address
        self.outgoing.limit = UNACKNOWLEDGED if acknowledges else 0
        self.stalled = self.outgoing.sequence > 0

    def detach(self) -> Listener | None:
        """Parts it from its client's connection, which is returned, for good: what still arrives
        there is thrown away."""
        listener, self.listener = self.listener, None
        if listener is not None:
            listener.detach(self)
        return listener

    def silent(self, now: float) -> float:
        """Seconds for which its client could have sent audio, and did not."""
        listening = self.listener is not None and self.room.is_set() and not self.incoming.ended
        return now - self.spoke if listening else 0.0

    def feed(self, audio: Audio) -> None:
        """Audio from the client."""
        count = len(audio.samples)
        if count:
            now = self.spoke = self.pooled.clock()
            captured = self.clock.arrived(audio.timestamp / 1e6, count / self.rate_in, now)
            self.arrivals.arrived(self.samples_in, count, now)
            self.pooled.push(audio.samples, captured=captured, arrived=now)
            self.samples_in += count
        self.metrics.frames_in.inc()

    def finish(self) -> None:
        """No more audio comes from the client."""
        self.pooled.finish()

    def collect(self, samples: Samples, captured: float, done: bool) -> None:
        """Output of the pool, whose end was captured at `captured`."""
        if len(samples):
            # The end of a finished stream answers padding, which nobody captured.
            tail = self.pooled.chunker.end is not None and len(self.waiting)
            self.waiting.append(samples, None if tail else captured - len(samples) / self.rate_out)
        self._trim()
        if done and self.output is Output.COMING:
            self.output = Output.COMPLETE
        self._note_losses()

    def has_room(self, limit: float) -> bool:
        """Whether less than `limit` seconds of input and of output wait; `room` is set or cleared
        accordingly."""
        room = self.output is not Output.COMING or (
            self.queued < limit and self.waiting.seconds < limit
        )
        if room:
            self.room.set()
        else:
            self.room.clear()
        return room

    @property
    def queued(self) -> float:
        """Seconds of input that wait for the model."""
        chunker = self.pooled.chunker
        before = max(0.0, self.samples_in - chunker.entry.received) / self.rate_in
        return before + chunker.backlog.seconds

    @property
    def dropped(self) -> float:
        """Seconds of audio that were dropped because they were stale."""
        return self.dropped_in / self.pooled.chunker.rate + self.waiting.dropped / self.rate_out

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
        if self.output is Output.SENT:
            return None
        self._trim()
        dropped_in = self.dropped_in / self.pooled.chunker.rate
        first = (self.waiting.taken / self.rate_out + dropped_in) * self.rate_in
        taken = self._take()
        if taken is None:
            self.stalled = False
            return None
        samples, captured = taken
        now = self.pooled.clock()
        if self._is_last(samples):
            self.output = Output.SENT
        quiet = silence and not samples.any()
        data = self.outgoing.frame(
            samples,
            self.clock.back(captured),
            end=self.output is Output.SENT,
            dropped=self.gap,
            silence=quiet,
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
        return {
            "frames_in": self.incoming.expected,
            "frames_out": self.outgoing.sequence,
            "samples_in": self.samples_in,
            "samples_out": self.samples_out,
            "dropped_ms": round(1000 * self.dropped, 3),
            "xruns": self.pooled.late,
            **percentiles(self.lags, "lag_", digits=2),
        }

    def _take(self) -> tuple[Samples, float] | None:
        """Samples for one frame, and when the first was captured; None when there are too few yet.
        Opus packets are always full."""
        block = self.outgoing.codec.block
        if len(self.waiting) < (block or 1) and self.output is Output.COMING:
            return None
        return self._cut(block or int(FRAME_S * self.rate_out))

    def _cut(self, count: int) -> tuple[Samples, float]:
        """At most `count` samples of those that wait, filled up to a block of the codec."""
        captured, block = self.waiting.captured(), self.outgoing.codec.block
        samples = self.waiting.take(min(count, len(self.waiting)))
        if 0 < len(samples) < block:
            samples = np.concatenate([samples, np.zeros(block - len(samples), np.float32)])
        return samples, captured

    def _is_last(self, samples: Samples) -> bool:
        """Whether the frame with these samples, just taken, is the session's last one."""
        return self.output is Output.COMPLETE and not len(self.waiting)

    def _trim(self) -> None:
        before = self.waiting.dropped
        self.waiting.trim(self.pooled.clock())
        lost = self.waiting.dropped - before
        if lost:
            self.gap = True
            self.metrics.dropped.inc(lost / self.rate_out)

    def _note_losses(self) -> None:
        """Passes on what the pool dropped or did too late since the last time."""
        lost = self.pooled.chunker.backlog.dropped - self.dropped_in
        late = self.pooled.late - self.late
        if lost > 0:
            self.gap = True
            self.dropped_in += lost
            self.metrics.dropped.inc(lost / self.pooled.chunker.rate)
        if late > 0:
            self.late += late
            self.metrics.xruns.inc(late)
        resets = self.pooled.resets - self.resets
        if resets > 0:
            self.resets += resets
            self.metrics.resets.inc(resets)
