"""Packets in the order in which they were spoken, however they arrive: what comes late is waited
for as long as the network's own unrest asks for, what never comes is told.

No clock and no socket: whoever uses it says what time it is.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np

RATE = 48_000
"""Ticks a second of RTP timestamps of Opus, whatever is in it (RFC 7587, section 4.1)."""
BLOCK = 960
"""Ticks of a packet of 20 ms."""
WINDOW = 250
"""Packets by which the unrest of the network is judged: 5 s of packets of 20 ms."""
EVERY = 8
"""Packets between two judgements."""
MARGIN_S = 0.005
"""Seconds beyond the unrest that a packet is waited for."""
LONGEST_WAIT_S = 0.2
"""Seconds of unrest that are waited for at most: beyond that a gap is better than a delay."""
JUMP = 500
"""Packets; whose number is further off than that begins a new stream."""
LONGEST_GAP = 50
"""Missing packets in a row that are told one by one: for a longer gap the stream begins anew."""


@dataclass(frozen=True)
class Packet:
    """A packet whose turn it is.

    Attributes:
        payload: of the codec; None if it never came.
        following: payload of the next packet, if this one never came and that one did: Opus carries
            a coarse copy of each packet in the next (RFC 6716, section 2.1.7).
        timestamp: ticks since the stream's beginning.
        anew: what came before has no connection with it.
    """

    payload: bytes | None
    timestamp: int
    following: bytes | None = None
    anew: bool = False


class JitterBuffer:
    """Sorts the packets of one stream.

    A packet is due at its timestamp plus the fastest way that any packet of the last seconds took,
    plus the unrest: by how much the slowest of them took longer.

    Args:
        paced: packets are handed out when they are due, for a loudspeaker; otherwise as soon as
            their turn has come, for a model that paces its own output.
        most: packets that may wait; for more the oldest are dropped.

    Attributes:
        received: packets that came in time.
        lost: packets that never came, or too late.
        late: of them, those that came too late.
    """

    def __init__(self, *, paced: bool = False, most: int = 100) -> None:
        self.paced, self.most = paced, most
        self.received = self.lost = self.late = 0
        self._waiting: dict[int, tuple[int, bytes]] = {}
        self._next = self._newest = self._timestamp = -1
        self._anew = True
        self._ways = deque[float](maxlen=WINDOW)
        self._way = self.unrest = 0.0
        self._judged = 0

    def put(self, sequence: int, timestamp: int, payload: bytes, now: float) -> None:
        """A packet arrived.

        Args:
            sequence: its number, 16 bits.
            timestamp: its RTP timestamp, 32 bits.
            payload: of the codec.
            now: seconds of any clock.
        """
        if self._next >= 0:
            number = self._newest + _signed(sequence - self._newest, 16)
            ticks = self._timestamp + _signed(timestamp - self._timestamp, 32)
            steps, jump = number - self._newest, ticks - self._timestamp
            if abs(steps) > JUMP or abs(jump) > JUMP * BLOCK * 6:
                self._next = -1
        if self._next < 0:
            number, ticks = sequence, timestamp
            self._begin(number)
        if number < self._next or number in self._waiting:
            self.late += number < self._next
            return
        if number >= self._newest:
            self._newest, self._timestamp = number, ticks
        self._waiting[number] = ticks, payload
        self._judge(now - ticks / RATE)
        while len(self._waiting) > self.most:
            self._skip_to_next()

    def _begin(self, number: int) -> None:
        """A new stream, or one that went on elsewhere."""
        self._waiting.clear()
        self._ways.clear()
        self._judged = 0
        self._next, self._newest, self._timestamp, self._anew = number, number, -1, True

    def _judge(self, way: float) -> None:
        """One more packet took that way, in seconds beyond an unknown constant."""
        self._ways.append(way)
        self._judged += 1
        if self._judged < EVERY or self._judged % EVERY == 0 or way < self._way:
            ways = np.fromiter(self._ways, float)
            self._way = float(ways.min())
            self.unrest = min(LONGEST_WAIT_S, float(np.quantile(ways, 0.99)) - self._way)

    def _due(self, ticks: int) -> float:
        return self._way + ticks / RATE + self.unrest + MARGIN_S

    def _first(self) -> tuple[int, int] | None:
        """Number and timestamp of the first packet that waits."""
        if not self._waiting:
            return None
        number = min(self._waiting)
        return number, self._waiting[number][0]

    def due(self) -> float | None:
        """When `take` has something although nothing arrives; None when it never will."""
        first = self._first()
        if first is None:
            return None
        number, ticks = first
        if number == self._next:
            return self._due(ticks) if self.paced else float("-inf")
        missing = number - self._next
        return self._due(ticks - missing * self._length(number))

    def take(self, now: float) -> Packet | None:
        """The packet whose turn it is, or what is known of one that never came; None when there is
        nothing yet."""
        first, due = self._first(), self.due()
        if first is None or due is None or now < due:
            return None
        number, ticks = first
        missing = number - self._next
        if missing > LONGEST_GAP:
            self._skip_to_next()
            missing = 0
        if missing:
            self._next += 1
            self.lost += 1
            at = ticks - missing * self._length(number)
            following = self._waiting[number][1] if missing == 1 else None
            return Packet(None, at, following)
        payload = self._waiting.pop(number)[1]
        self._next += 1
        self.received += 1
        anew, self._anew = self._anew, False
        return Packet(payload, ticks, anew=anew)

    def _length(self, number: int) -> int:
        """Ticks of a packet before that one: as many as between it and the next, if that is
        there."""
        following = self._waiting.get(number + 1)
        length = following[0] - self._waiting[number][0] if following else BLOCK
        return length if 0 < length <= 6 * BLOCK else BLOCK

    def _skip_to_next(self) -> None:
        """Gives up what misses, or else the oldest that waits: the stream begins anew behind it."""
        first = self._first()
        assert first is not None
        if first[0] == self._next:
            del self._waiting[first[0]]
            self.lost += 1
            self._next += 1
        else:
            self.lost += first[0] - self._next
            self._next = first[0]
        self._anew = True


def _signed(difference: int, bits: int) -> int:
    """A difference of two numbers that count around, the shorter way."""
    half = 1 << (bits - 1)
    return (difference + half) % (1 << bits) - half
