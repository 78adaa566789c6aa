"""A client that speaks over UDP: `async with rtvc.clients.webrtc.call.call(url, "anna") as c:`,
blocks go in, converted blocks come out when a loudspeaker should play them.

The same server, sessions and messages as over the websocket, but a lost packet delays nothing
here: it is made up for from the next one, or guessed.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from rtvc.audio.samples import Samples
from rtvc.clients.webrtc.offer import post
from rtvc.clients.webrtc.questions import Questions, pieces_of
from rtvc.clients.websocket.asking import UPLOAD_S, Answer, Asking
from rtvc.engine.protocol.client_side import ClientSide
from rtvc.engine.protocol.fields import VoiceChoice
from rtvc.engine.protocol.messages import Message, Start, Started, Stopped, VoiceReady, Welcome
from rtvc.engine.protocol.refusals import message_of
from rtvc.engine.streams.block import check_block
from rtvc.engine.webrtc.jitter import BLOCK, RATE, JitterBuffer
from rtvc.engine.webrtc.peer import Tap, voice_track
from rtvc.engine.webrtc.speech import Decoder, Encoder, library
from rtvc.errors import ServiceError, needs_extra

if TYPE_CHECKING:
    from aiortc import RTCPeerConnection


OPEN_S = 10.0
"""Within this time a call is open and greeted."""
STRAGGLE_S = 0.1
"""Seconds beyond the network's unrest that the last packets of a session may take."""
GOODBYE_S = 1.0
"""Seconds that the server is given to take note of a goodbye."""


@dataclass
class Heard:
    """What became of the packets that the server sent.

    Attributes:
        received: came in time.
        lost: never came, or too late.
        recovered: of the lost ones, those whose copy was in the next packet.
        concealed: of the lost ones, those that were guessed.
        unrest_ms: by how much the slowest packets of the last seconds took longer than the
            fastest: so long the player waits.
    """

    received: int
    lost: int
    recovered: int
    concealed: int
    unrest_ms: float


@dataclass(frozen=True)
class Piece:
    """Converted audio that is due.

    Attributes:
        samples: (N,) float32 at 48 kHz.
        timestamp: of the first one, in ticks of 48 kHz since the first packet.
        lost: its packet never came: it is a coarse copy, or guessed.
    """

    samples: Samples
    timestamp: int
    lost: bool


class Call(Asking):
    """One call and its session; `call` makes one, and it is used with `async with`.

    Iterating over it gives converted blocks, (N,) float32 at 48 kHz, each when it is due.

    Attributes:
        welcome: what the server said about itself.
        started: what it said about the session.
        totals: the session's final counts, once it is over.
    """

    def __init__(
        self, url: str, voice: VoiceChoice | None, token: str | None, settings: dict[str, Any]
    ) -> None:
        self.url, self._voice, self._token, self._settings = url, voice, token, settings
        self.side = ClientSide("rtvc webrtc", ())
        self.buffer = JitterBuffer(paced=True)
        self.welcome: Welcome | None = None
        self.started: Started | None = None
        self.totals: Stopped | None = None
        self._encoder, self._decoder = Encoder(), Decoder()
        self._packets: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self._track = voice_track(self._packets)
        self._rest, self._ticks = np.zeros(0, np.float32), 0
        self._news = asyncio.Event()
        self._connection: RTCPeerConnection
        self._questions: Questions
        self._channel: Any = None

    async def __aenter__(self) -> Self:
        from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        try:
            self._connection.addTrack(self._track)
            self._channel = self._connection.createDataChannel("rtvc")
            opened = asyncio.Event()
            self._channel.on("open", opened.set)
            self._questions = Questions(self._channel, self.side, self._news.set)
            self._connection.on("connectionstatechange", self._changed)
            Tap(self._heard).into(self._connection.getTransceivers()[0].receiver)
            await self._connection.setLocalDescription(await self._connection.createOffer())
            offer = self._connection.localDescription.sdp
            answer = await asyncio.to_thread(post, self.url, offer, self._token)
            await self._connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
            try:
                async with asyncio.timeout(OPEN_S):
                    await opened.wait()
            except TimeoutError:
                raise ServiceError(
                    f"{self.url} answered, and no packet of it came within {OPEN_S:g} s: is UDP let"
                    " through to it?"
                ) from None
            self.welcome = await self._questions.ask(self.side.hello(self._token), Welcome)
            if self._voice is not None:
                await self.start(self._voice)
        except BaseException:
            await self._connection.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._channel.readyState == "open":
            self._questions.lost(ServiceError("the call is over: make another one"))
            gone = asyncio.Event()
            self._channel.on("close", gone.set)
            self._channel.close()
            # A goodbye may get lost, too; this one is sent until the server takes note.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await gone.wait()
        await self._connection.close()

    def _changed(self) -> None:
        if self._connection.connectionState in ("failed", "closed"):
            self._questions.lost()

    def _heard(self, sequence: int, timestamp: int, payload: bytes) -> None:
        self.buffer.put(sequence, timestamp, payload, asyncio.get_running_loop().time())
        self._news.set()

    async def start(self, voice: VoiceChoice, **settings: Any) -> Started:
        """Opens a session; settings as of `call`.

        Raises:
            ConfigError: a setting that no session has, or an impossible value.
            Refusal: the server has no such voice, or no place.
        """
        fields = self._settings | settings
        asked = message_of(Start, voice=voice, sample_rate=RATE, format="opus", **fields)
        self.started = await self._questions.ask(self.side.start(asked), Started)
        self.totals = None
        return self.started

    async def send(self, block: ArrayLike) -> None:
        """Sends a block (N,) of floats in [-1, 1] at 48 kHz, at once: at a microphone's pace.

        Raises:
            ServiceError: the call broke off.
        """
        if self._questions.problem:
            raise self._questions.problem
        samples = np.concatenate([self._rest, check_block(block)])
        whole = len(samples) - len(samples) % BLOCK
        self._rest = samples[whole:]
        for at in range(0, whole, BLOCK):
            packet = self._encoder.encode(samples[at : at + BLOCK])
            self._packets.put_nowait((self._ticks, packet))
            self._ticks += BLOCK

    async def finish(self) -> Stopped:
        """No more input follows; what is left comes back, and the session's totals are
        returned."""
        if len(self._rest):
            await self.send(np.zeros(BLOCK - len(self._rest), np.float32))
        while not self._packets.empty():
            await asyncio.sleep(0.005)
        self.totals = await self._questions.ask(self.side.stop(), Stopped)
        self._news.set()
        return self.totals

    async def blocks(self) -> AsyncIterator[Samples]:
        """Converted audio, (N,) float32 at 48 kHz; see `pieces`."""
        async for piece in self.pieces():
            yield piece.samples

    async def pieces(self) -> AsyncIterator[Piece]:
        """Converted audio, each piece when it is due; ends some packets after the session.

        Raises:
            ServiceError: the call broke off.
        """
        clock = asyncio.get_running_loop().time
        while True:
            self._news.clear()
            packet = self.buffer.take(clock())
            if packet is not None:
                samples = self._decoder.decode(packet)
                yield Piece(samples, packet.timestamp, packet.payload is None)
                continue
            due = self.buffer.due()
            if due is None and self.totals is not None:
                # What was sent before `stopped` may come after it.
                due = clock() + self.buffer.unrest + STRAGGLE_S
            if due is None and self._questions.problem:
                raise self._questions.problem
            patience = None if due is None else max(0.001, due - clock())
            try:
                async with asyncio.timeout(patience):
                    await self._news.wait()
            except TimeoutError:
                if self.totals is not None and self.buffer.due() is None:
                    return

    def __aiter__(self) -> AsyncIterator[Samples]:
        return self.blocks()

    @property
    def heard(self) -> Heard:
        """What became of the packets so far."""
        buffer, decoder = self.buffer, self._decoder
        return Heard(
            buffer.received,
            buffer.lost,
            decoder.recovered,
            decoder.concealed,
            round(1000 * buffer.unrest, 1),
        )

    async def _ask(self, message: Message, expected: type[Answer]) -> Answer:
        return await self._questions.ask(message.text(), expected)

    async def _upload(self, name: str, data: bytes) -> VoiceReady:
        announcement = next(iter(self.side.upload(name, data)))
        return await self._questions.ask(str(announcement), VoiceReady, pieces_of(data), UPLOAD_S)


def call(
    url: str, voice: VoiceChoice | None = None, *, token: str | None = None, **settings: Any
) -> Call:
    """A call to a server at `url`, to be used with `async with`.

    Args:
        url: `ws://host:port`, `https://host`.
        voice: a voice of the server, or names and shares of several; None opens no session yet.
        token: what the server wants to see.
        settings: of the session: pitch, prosody, wet, max_lag_ms (without it nothing is ever
            dropped), gate.

    Raises:
        DependencyError: aiortc or libopus is missing.
    """
    library()
    with needs_extra("webrtc", "calls need aiortc"):
        import aiortc  # noqa: F401
    return Call(url, voice, token, settings)
