"""Between a call and the protocol, without any socket: packets of a media track in one direction,
frames of the protocol in the other.

The protocol's connection hears and speaks plain samples in numbered frames; what the network lost
has been made up for before it gets there. `start` and `started` are reworded on the way: rate and
format of a call are those of its track, whatever they say.
"""

import json
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from rtvc.engine.protocol.fields import LARGEST_TEXT
from rtvc.engine.protocol.frames import DROPPED, END, FORMATS, SILENCE, Frame, parse
from rtvc.engine.protocol.streams import COUNT
from rtvc.engine.webrtc.jitter import BLOCK, RATE, JitterBuffer, Packet
from rtvc.engine.webrtc.speech import Decoder, Encoder

LONGEST_PAUSE = RATE
"""Ticks of a pause between two packets that is filled with silence; a longer one is left out, and
told."""
STRAGGLE_S = 0.02
"""Seconds beyond the network's unrest that audio from before `stop` may come after it."""


class Inward:
    """What a client says, as frames of the protocol.

    Attributes:
        buffer: of the packets that arrive.
        decoder: of what is in them.
        live: a session runs: until then what is said goes nowhere.
    """

    def __init__(self) -> None:
        self.buffer, self.decoder = JitterBuffer(), Decoder()
        self.live = False
        self._sequence, self._expected = 0, -1
        self._gap = False

    def begin(self, sequence: int) -> None:
        """A session runs from now on, whose next frame is number `sequence`."""
        self.live, self._sequence, self._expected, self._gap = True, sequence, -1, False

    def end(self) -> None:
        """It is over, or hears no more."""
        self.live = False

    def next(self, now: float) -> bytes | None:
        """The next frame, if there is one by now."""
        while (packet := self.buffer.take(now)) is not None:
            if self.live:
                return self._frame(packet)
        return None

    def _frame(self, packet: Packet) -> bytes:
        samples = self.decoder.decode(packet)
        timestamp, pause = packet.timestamp, 0
        if self._expected >= 0:
            pause = timestamp - self._expected
            if packet.anew or not 0 <= pause <= LONGEST_PAUSE:
                self._gap, pause = True, 0
        self._expected = timestamp + len(samples)
        if pause:  # Opus sends nothing while nobody speaks, if it is told to
            samples = np.concatenate([np.zeros(pause, np.float32), samples])[-RATE:]
            timestamp = self._expected - len(samples)
        frame = Frame(
            DROPPED * self._gap,
            FORMATS["f32"],
            self._sequence,
            max(0, timestamp) * 1_000_000 // RATE,
            samples.astype("<f4").tobytes(),
        )
        self._sequence += 1
        self._gap = False
        return frame.to_bytes()


class Outward:
    """What a client hears: packets and their timestamps, from frames of the protocol.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock, self.encoder = clock, Encoder()
        self._began = clock()
        self._ticks = 0
        self._rest = np.zeros(0, np.float32)
        self._expected = -1.0  # capture time of the next sample, in microseconds

    def begin(self) -> None:
        """A session begins: its audio is of now, however long there was none."""
        self._ticks = max(self._ticks, round((self.clock() - self._began) * RATE))
        self._rest, self._expected = self._rest[:0], -1.0

    def packets(self, data: bytes) -> list[tuple[int, bytes]]:
        """Timestamp in ticks and payload of every packet that a frame fills; the last frame fills
        the last packet."""
        frame = parse(data)
        if frame.flags & SILENCE:
            samples = np.zeros(COUNT.unpack(frame.payload)[0], np.float32)
        else:
            samples = np.frombuffer(frame.payload, "<f4").astype(np.float32)
        if frame.flags & DROPPED and self._expected >= 0:
            # What was dropped is missing in time, too: a player that waits for it stays behind.
            self._ticks += max(0, round((frame.timestamp - self._expected) * RATE / 1e6))
        self._expected = frame.timestamp + len(samples) * 1e6 / RATE
        samples = np.concatenate([self._rest, samples])
        if frame.flags & END:
            samples = np.pad(samples, (0, -len(samples) % BLOCK))
        whole = len(samples) - len(samples) % BLOCK
        self._rest = samples[whole:]
        packets = []
        for at in range(0, whole, BLOCK):
            packets.append((self._ticks, self.encoder.encode(samples[at : at + BLOCK])))
            self._ticks += BLOCK
        return packets


class Media:
    """Both directions of a call, and the messages about them.

    Args:
        clock: seconds.
        sent: how many frames the session of a name has sent, None for one that is not here:
            what a call has missed is over.

    Attributes:
        inward: what its client says.
        outward: what it hears.
        waiting: bytes of messages that came and were not read.
    """

    def __init__(self, clock: Callable[[], float], sent: Callable[[str], int | None]) -> None:
        self.clock, self.sent = clock, sent
        self.inward, self.outward = Inward(), Outward(clock)
        self.waiting = 0
        self._messages = deque[tuple[str | bytes, float, int]]()  # when to be read, and the size

    def hear(self, data: str | bytes) -> None:
        """A message, or a piece of a file, from the client: read at once, but `stop` only after the
        audio that was on its way before it."""
        self.waiting += len(data)
        text, when = self._reworded(data) if isinstance(data, str) else (data, self.clock())
        before = self._messages[-1][1] if self._messages else when
        self._messages.append((text, max(when, before), len(data)))

    def _reworded(self, text: str) -> tuple[str, float]:
        """A message as the connection shall read it, and when."""
        when = self.clock()
        message = _read(text)
        kind = message.get("type")
        if kind == "start":
            message |= {"sample_rate": RATE, "output_rate": RATE, "format": "f32"}
            text = json.dumps(message)
        elif kind == "resume":
            name = message.get("session")
            sent = self.sent(name) if isinstance(name, str) else None
            text = text if sent is None else json.dumps(message | {"received": sent})
        elif kind == "stop":
            when += self.inward.buffer.unrest + STRAGGLE_S
        return text, when

    def next(self) -> str | bytes | None:
        """What the connection reads next, if there is something by now."""
        now = self.clock()
        frame = self.inward.next(now)
        if frame is not None:
            return frame
        if self._messages and self._messages[0][1] <= now:
            data, _, size = self._messages.popleft()
            self.waiting -= size
            return data
        return None

    def due(self) -> float | None:
        """When `next` has something although nothing arrives; None when it never will."""
        times = [when for when in (self.inward.buffer.due(),) if when is not None]
        times += [self._messages[0][1]] if self._messages else []
        return min(times, default=None)

    def say(self, text: str) -> str:
        """A message to the client, as it is to be sent."""
        message = _read(text)
        kind = message.get("type")
        if kind == "started":
            self.inward.begin(0)
            self.outward.begin()
            return json.dumps(message | {"format": "opus"})
        if kind == "resumed":
            self.inward.begin(int(message["wanted"]))
            self.outward.begin()
        elif kind == "stopped":
            self.inward.end()
        return text


def _read(text: str) -> dict[str, Any]:
    """A message; nothing if it is none, or too long to be one."""
    if len(text) > LARGEST_TEXT:
        return {}
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}
