"""A session that can go on in another process: numbered so that both would send the same frames,
and packed as bytes.

What another replica needs is the state of the stream between two steps, what of its output the
client may not have, and the numbers at that moment. Everything after it can be computed again,
because the client keeps what it sent: so nothing is lost however old the bytes are, as long as the
client still has the input from there on.
"""

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

import numpy as np

from rtvc.audio.samples import Samples
from rtvc.engine.protocol.messages import Start
from rtvc.engine.protocol.streams import SequenceError
from rtvc.engine.server.session import Output, ServerSession
from rtvc.engine.streams.state_bytes import from_bytes, to_bytes

AHEAD_S = 12.0
"""Seconds of output by which a client can be ahead of a saved session: what clients keep of their
input, and some more."""
PLAIN = ("id", "key", "voice", "wet", "samples_out", "collected", "gap", "dropped_in")
"""Attributes of a session that are saved as they are."""


class Home(Enum):
    """Where a session lives."""

    NATIVE = "it began here"
    ADOPTED = "it comes from another replica"
    MOVED = "it went on at another replica"


class FleetSession(ServerSession):
    """A `ServerSession` whose frames depend on nothing but the audio: one for every chunk of the
    model, then an empty one with END.

    A replica that takes the session up makes the frames that the client already has once more, and
    does not send them.

    Attributes:
        home: where it lives.
        collected: samples of output that came.
        received: frames before this one are at the client already.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.home = Home.NATIVE
        self.collected = self.received = 0
        self._chunks = 0  # of the model, up to the end of the one that the next sample belongs to
        self._limits: tuple[float | None, float | None] | None = None

    def collect(self, samples: Samples, captured: float, done: bool) -> None:
        """Output of the pool, whose end was captured at `captured`."""
        super().collect(samples, captured, done)
        self.collected += len(samples)

    def rewind(self, received: int) -> None:
        """Sends again from frame `received` on, before anything new; after a restoration the client
        may have frames that were not made here yet.

        Raises:
            SequenceError: they are no longer kept, or nobody can have made them.
        """
        if self.home is not Home.ADOPTED or received <= self.outgoing.sequence:
            super().rewind(received)
            return
        if received > self.outgoing.sequence + AHEAD_S / self.pooled.tick_s:
            raise SequenceError(
                f"expected a frame up to {self.outgoing.sequence}, the next to be made, got"
                f" {received}: start a new session"
            )
        self.again.clear()
        self.received = received

    def frame(self, silence: bool) -> bytes | None:
        """The next frame that the client does not have, or None when there is none yet."""
        data = super().frame(silence)
        while data is not None and self.outgoing.sequence <= self.received:
            self.lags.clear()  # their age says nothing: the client had them in time
            data = super().frame(silence)
        if self._limits is not None and self.outgoing.sequence >= self.received:
            self.pooled.chunker.backlog.limit, self.waiting.limit = self._limits
            self._limits = None
        return data

    def state(self) -> dict[str, Any]:
        """Arrays and numbers of the output side to go on from."""
        return {
            **{name: getattr(self, name) for name in PLAIN},
            "over": self.output is not Output.COMING,
            "finished": self.output is Output.SENT,
            "start": self.start.text(),
            "waiting": self.waiting.state(),
            **self.outgoing.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` returned: identity, numbers and output. Until `frame` has
        caught up with the client nothing counts as stale: what the client has must be made again in
        full."""
        for name in PLAIN:
            setattr(self, name, state[name])
        if state["over"]:
            self.output = Output.SENT if state["finished"] else Output.COMPLETE
        self.home = Home.ADOPTED
        self.waiting.restore(state["waiting"])
        self.outgoing.restore(state)
        self._limits = self.pooled.chunker.backlog.limit, self.waiting.limit
        self.pooled.chunker.backlog.limit = self.waiting.limit = None

    def _take(self) -> tuple[Samples, float] | None:
        block = self.outgoing.codec.block
        count = block or self._boundary() - self.waiting.taken
        if len(self.waiting) < count and self.output is Output.COMING:
            return None
        return self._cut(count)

    def _is_last(self, samples: Samples) -> bool:
        """The empty one: whether a frame with samples is the last may be known only after it has
        been sent, and a replica that makes it again must make the same."""
        return self.output is Output.COMPLETE and not len(samples)

    def _boundary(self) -> int:
        """Where in the output the chunk ends that the next sample belongs to.

        Two replicas get the same output in pieces of different sizes: one tick here may be three
        there. So frames are cut where the model's chunks end, which follows from their number.
        """
        chunker, taken = self.pooled.chunker, self.waiting.taken
        if not self._chunks:
            # A first guess from below, so that a restored session does not count from its
            # beginning: at the model's rate sample `taken` belongs to this chunk or, by what the
            # resampler holds back, to the next. One less is safe, for the loop only goes up.
            position = taken * chunker.rate / self.rate_out + chunker.latency
            self._chunks = max(0, int(position / chunker.chunk) - 1)
        while self._length(self._chunks) <= taken:
            self._chunks += 1
        return self._length(self._chunks)

    def _length(self, chunks: int) -> int:
        """Output samples that so many chunks come to: the model's latency and half of the outer
        resampler's filter stay behind."""
        chunker = self.pooled.chunker
        samples = chunks * chunker.chunk - chunker.latency - chunker.exit.half
        return chunker.exit.length(max(0, samples))


@dataclass(frozen=True)
class Moment:
    """A session's input when it was asked for its state.

    Attributes:
        wanted: number of the next input frame.
        ended: whether input had ended.
        samples_in: that had come.
        offset: seconds from the client's clock to this machine's.
        wall: seconds to add to the pool's clock to get the time of day, by which clocks of two
            machines are compared.
    """

    wanted: int
    ended: bool
    samples_in: int
    offset: float
    wall: float


def pack(session: FleetSession, pooled: bytes, moment: Moment) -> bytes:
    """A session as bytes, for `Packed` on another machine.

    Args:
        session: all its output up to `pooled` has been collected, none after it.
        pooled: its half in the pool, parked.
        moment: its input up to then.
    """
    return to_bytes(
        {**session.state(), **asdict(moment), "parcel": np.frombuffer(pooled, np.uint8)}
    )


class Packed:
    """What `pack` wrote, read: settings first, so that a place can be found before anything is
    restored.

    Args:
        data: the bytes.

    Raises:
        EngineError: they are something else.
    """

    def __init__(self, data: bytes) -> None:
        self.tree = from_bytes(data)
        self.session: str = self.tree["id"]
        self.start = Start.model_validate_json(self.tree["start"])

    def shift(self, wall: float) -> float:
        """Seconds from the clock of the machine that saved to the clock here, whose difference to
        the time of day is `wall`."""
        return float(self.tree["wall"] - wall)

    def pooled(self, wall: float) -> bytes:
        """Its half in the pool, parked, its times moved to the clock here."""
        tree = from_bytes(self.tree["parcel"].tobytes())
        shift = self.shift(wall)
        tree["line"]["captured"] += shift
        tree["line"]["backlog"]["marks"][:, 1] += shift
        return to_bytes(tree)

    def restore(self, session: FleetSession, wall: float, now: float) -> None:
        """Gives a fresh session the saved one's identity, numbers and output."""
        tree, shift = self.tree, self.shift(wall)
        tree["waiting"]["marks"][:, 1] += shift
        session.restore(tree)
        session.samples_in = tree["samples_in"]
        session.incoming.restore(tree["wanted"], tree["ended"])
        session.clock.restore(tree["offset"] + shift, now)
