"""A session that can go on in another process: numbered so that both would send the same frames,
and packed as bytes.

What another replica needs is the state of the stream between two steps, what of its output the
client may not have, and the numbers at that moment. Everything after it can be computed again,
because the client keeps what it sent: so nothing is lost however old the bytes are, as long as the
client still has the input from there on.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtvc.engine.protocol.messages import Start
from rtvc.engine.protocol.streams import SequenceError
from rtvc.engine.server.session import Call
from rtvc.engine.streams.state_bytes import from_bytes, to_bytes

Samples = NDArray[np.float32]

AHEAD_S = 12.0
"""Seconds of output by which a client can be ahead of a saved session: what clients keep of their
input, and some more."""
PLAIN = (
    "id",
    "key",
    "voice",
    "wet",
    "samples_out",
    "collected",
    "over",
    "finished",
    "gap",
    "dropped_in",
)
"""Attributes of a call that are saved as they are."""


class MovingCall(Call):
    """A `Call` whose frames depend on nothing but the audio: one for every chunk of the model, then
    an empty one with END.

    A replica that takes the session up makes the frames that the client already has once more, and
    does not send them.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.over = False  # all output has come
        self.collected = 0  # samples that came
        self.received = 0  # frames before this one are at the client already
        self.restored = self.moved = False  # comes from elsewhere; went elsewhere
        self._chunks = 0
        self._limits: tuple[float | None, float | None] | None = None

    def collect(self, samples: Samples, captured: float, done: bool) -> None:
        """As `Call.collect`."""
        super().collect(samples, captured, False)
        self.collected += len(samples)
        self.over |= done

    def rewind(self, received: int) -> None:
        """As `Call.rewind`; after a restoration the client may have frames that were not made here
        yet.

        Raises:
            SequenceError: they are no longer kept, or nobody can have made them.
        """
        if not self.restored or received <= self.outgoing.sequence:
            super().rewind(received)
            return
        if received > self.outgoing.sequence + AHEAD_S / self.member.pool.tick_s:
            raise SequenceError(
                f"frame {received} was wanted, {self.outgoing.sequence} is the next to be made:"
                " start a new session"
            )
        self.again.clear()
        self.received = received

    def hold(self) -> None:
        """Until `frame` has caught up with the client nothing counts as stale: what the client has
        must be made again in full."""
        self.restored = True
        self._limits = self.member.line.backlog.limit, self.waiting.limit
        self.member.line.backlog.limit = self.waiting.limit = None

    def frame(self, silence: bool) -> bytes | None:
        """As `Call.frame`."""
        data = super().frame(silence)
        while data is not None and self.outgoing.sequence <= self.received:
            self.lags.clear()  # their age says nothing: the client had them in time
            data = super().frame(silence)
        if self._limits is not None and self.outgoing.sequence >= self.received:
            self.member.line.backlog.limit, self.waiting.limit = self._limits
            self._limits = None
        return data

    def _take(self) -> tuple[Samples | None, float]:
        count, block = len(self.waiting), self.outgoing.codec.block
        wanted = block or self._boundary() - self.waiting.taken
        self.ended = self.over and not count
        if count < wanted and not self.over:
            return None, 0.0
        captured = self.waiting.captured()
        samples = self.waiting.take(min(count, wanted))
        if block and 0 < len(samples) < block:
            samples = np.concatenate([samples, np.zeros(block - len(samples), np.float32)])
        return samples, captured

    def _boundary(self) -> int:
        """Where in the output the chunk ends that the next sample belongs to."""
        line, taken = self.member.line, self.waiting.taken
        if not self._chunks:
            self._chunks = max(
                0, int((taken * line.rate / self.rate_out + line.latency) / line.chunk) - 1
            )
        while self._made(self._chunks) <= taken:
            self._chunks += 1
        return self._made(self._chunks)

    def _made(self, chunks: int) -> int:
        """Output samples that so many chunks give."""
        line = self.member.line
        return line.exit.length(max(0, chunks * line.chunk - line.latency - line.exit.half))


@dataclass(frozen=True)
class Moment:
    """A call's input when its parcel was asked for.

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


def pack(call: MovingCall, parcel: bytes, moment: Moment) -> bytes:
    """A call as bytes, for `Packed` on another machine.

    Args:
        call: all its output up to the parcel has been collected, none after it.
        parcel: of its member.
        moment: its input up to the parcel.
    """
    kept = list(call.outgoing._kept)
    sizes = np.array(
        [(sequence, len(data), samples) for sequence, data, samples in kept], np.int64
    ).reshape(-1, 3)
    plain = {name: getattr(call, name) for name in PLAIN}
    tree = {
        **plain,
        **asdict(moment),
        "start": call.start.text(),
        "sequence": call.outgoing.sequence,
        "waiting": call.waiting.state(),
        "sizes": sizes,
        "kept": np.frombuffer(b"".join(data for _, data, _ in kept), np.uint8),
        "parcel": np.frombuffer(parcel, np.uint8),
    }
    return to_bytes(tree)


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

    def parcel(self, wall: float) -> bytes:
        """The member's parcel, its times moved to the clock here."""
        tree = from_bytes(self.tree["parcel"].tobytes())
        shift = self.shift(wall)
        tree["line"]["captured"] += shift
        tree["line"]["backlog"]["marks"][:, 1] += shift
        return to_bytes(tree)

    def restore(self, call: MovingCall, wall: float, now: float) -> None:
        """Gives a fresh call the saved one's identity, numbers and output."""
        tree, shift = self.tree, self.shift(wall)
        for name in PLAIN:
            setattr(call, name, tree[name])
        call.hold()
        call.incoming.wanted, call.incoming.ended, call.samples_in = (
            tree["wanted"],
            tree["ended"],
            tree["samples_in"],
        )
        tree["waiting"]["marks"][:, 1] += shift
        call.waiting.restore(tree["waiting"])
        call.clock._least, call.clock._opened = tree["offset"] + shift, now
        outgoing, at, data = call.outgoing, 0, tree["kept"].tobytes()
        outgoing.sequence = tree["sequence"]
        for sequence, size, samples in tree["sizes"].tolist():
            outgoing.store(sequence, data[at : at + size], samples)
            at += size
