"""One call as a `Transport`: messages over its data channel, audio over its media track."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from rtvc.engine.server.transport import Gone
from rtvc.engine.webrtc.jitter import RATE
from rtvc.engine.webrtc.media import Media
from rtvc.errors import DependencyError

if TYPE_CHECKING:
    from aiortc import RTCDataChannel, RTCPeerConnection, RTCRtpReceiver

WAITING = 1 << 20
"""Bytes of messages of a client that may wait to be read: the data channel itself holds nobody
back."""
UNSENT = 1 << 18
"""Bytes of messages that may wait for a slow client before no more are made."""
FAREWELL_S = 1.0
"""Seconds that the last words of a call may take to be sent."""
CLOSE_S = 2.0
"""Seconds that closing a call may take."""
PACKETS = 250
"""Packets of audio that may wait to be sent: 5 s."""

log = logging.getLogger("rtvc.serve")


def voice_track(packets: "asyncio.Queue[tuple[int, bytes]]") -> Any:
    """A track of audio that is packets already.

    Args:
        packets: timestamp in ticks and payload of each.
    """
    from aiortc import MediaStreamTrack
    from av.packet import Packet

    class VoiceTrack(MediaStreamTrack):
        kind = "audio"

        async def recv(self) -> Any:
            ticks, payload = await packets.get()
            packet = Packet(payload)
            packet.pts, packet.time_base = ticks, Fraction(1, RATE)
            return packet

    return VoiceTrack()


class Tap:
    """Takes the place of a receiver's own jitter buffer, which waits for a lost packet until 16
    others have come and makes up for none: the packets go to ours, and nothing is decoded there.

    Args:
        arrived: called with number, timestamp and payload of every packet.
    """

    NAME = "_RTCRtpReceiver__jitter_buffer"

    def __init__(self, arrived: Callable[[int, int, bytes], None]) -> None:
        self.arrived = arrived

    def add(self, packet: Any) -> tuple[bool, None]:
        """See `aiortc.jitterbuffer.JitterBuffer.add`: no key frame to ask for, no frame to
        decode."""
        self.arrived(packet.sequence_number, packet.timestamp, packet.payload)
        return False, None

    def into(self, receiver: "RTCRtpReceiver") -> None:
        """Sits down in a receiver.

        Raises:
            DependencyError: it has no such place.
        """
        if not hasattr(receiver, self.NAME):
            raise DependencyError(
                "expected an aiortc whose receivers have a jitter buffer of their own, got one"
                " without: pip install 'rtvc-engine[webrtc]'"
            )
        setattr(receiver, self.NAME, self)


class Peer:
    """One call.

    Args:
        connection: of aiortc, before it is answered.
        address: of the client, from where it asked for the call.
        media: both directions of its audio.
        known: called once, when the client is known.

    Attributes:
        track: what the client hears.
        closed: the call is over.
    """

    def __init__(
        self,
        connection: "RTCPeerConnection",
        address: str,
        media: Media,
        known: Callable[["Peer"], None],
    ) -> None:
        self.connection, self.address, self.media, self._known = connection, address, media, known
        self.closed = False
        self._packets: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue(PACKETS)
        self.track = voice_track(self._packets)
        self.opened = asyncio.Event()
        self._news, self._drained = asyncio.Event(), asyncio.Event()
        self._gone: Gone | None = None
        self._channel: RTCDataChannel | None = None
        connection.on("datachannel", self._open)
        connection.on("connectionstatechange", self._changed)

    def _open(self, channel: "RTCDataChannel") -> None:
        if self._channel is not None:
            channel.close()
            return
        self._channel = channel
        channel.bufferedAmountLowThreshold = 0
        channel.on("message", self._message)
        channel.on("bufferedamountlow", self._drained.set)
        channel.on("close", lambda: self._leave(well=True))
        self.opened.set()

    def _changed(self) -> None:
        state = self.connection.connectionState
        if state in ("failed", "closed"):
            self._leave(well=state == "closed")

    def _leave(self, *, well: bool) -> None:
        self._gone = self._gone or Gone(well=well)
        for event in (self._news, self._drained, self.opened):
            event.set()

    def _message(self, data: str | bytes) -> None:
        if self.media.waiting + len(data) > WAITING:
            log.warning("refused code=rate_limited address=%s", self.address)
            self._leave(well=False)
        elif self._gone is None:
            self.media.hear(data)
            self._news.set()

    def check(self) -> None:
        """Ends the call of a client that sends more of messages without an end than may wait: the
        library keeps it all, and passes nothing on."""
        room = getattr(self.connection.sctp, "_advertised_rwnd", 0)  # begins with 1 MiB
        if room < -WAITING and self._gone is None:
            log.warning("refused code=too_large address=%s", self.address)
            self._leave(well=False)

    def heard(self, sequence: int, timestamp: int, payload: bytes) -> None:
        """A packet of the client's track arrived."""
        self.media.inward.buffer.put(sequence, timestamp, payload, self.media.clock())
        self._news.set()

    async def receive(self) -> str | bytes:
        """See `Transport.receive`."""
        while self._gone is None:
            self._news.clear()
            data = self.media.next()
            if data is not None:
                return data
            due = self.media.due()
            patience = None if due is None else max(0.001, due - self.media.clock())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._news.wait()
        raise self._gone

    async def send(self, data: str | bytes) -> None:
        """See `Transport.send`."""
        if self._gone is not None or self._channel is None:
            raise self._gone or Gone
        if isinstance(data, bytes):
            for packet in self.media.outward.packets(data):
                await self._packets.put(packet)
            return
        text = self.media.say(data)
        while self._channel.bufferedAmount > UNSENT:
            await self._wait_drained()
        self._channel.send(text)

    async def _wait_drained(self) -> None:
        self._drained.clear()
        await self._drained.wait()
        if self._gone is not None:
            raise self._gone

    def greeted(self) -> None:
        """See `Transport.greeted`."""
        self._known(self)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """See `Transport.close`: whoever does not take the last words in time misses them."""
        if self.closed:
            return
        self.closed = True
        channel = self._channel
        with contextlib.suppress(TimeoutError, Gone):
            async with asyncio.timeout(FAREWELL_S):
                while channel is not None and self._gone is None and channel.bufferedAmount:
                    await self._wait_drained()
        # Waited for, and never cancelled: the library does not take that well.
        closing = asyncio.ensure_future(self.connection.close())
        await asyncio.wait({closing}, timeout=CLOSE_S)
        self._leave(well=False)
