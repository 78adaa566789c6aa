"""A client that speaks over UDP: `async with rtvc.clients.webrtc.call.call(url, "anna") as c:`,
blocks go in, converted blocks come out when a loudspeaker should play them.

The same server, sessions and messages as over the websocket, but a lost packet delays nothing
here: it is made up for from the next one, or guessed.
"""

import asyncio
import contextlib
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rtvc.clients.websocket.address import origin_of, websocket_address
from rtvc.clients.websocket.recording import Recording, named
from rtvc.engine.protocol.client_side import ClientSide
from rtvc.engine.protocol.fields import CALL_PATH, PATH, VoiceChoice
from rtvc.engine.protocol.frames import END, UPLOAD, Frame
from rtvc.engine.protocol.messages import (
    AskStats,
    Error,
    ListVoices,
    Start,
    Started,
    Stats,
    Stopped,
    Update,
    Updated,
    VoiceList,
    VoiceReady,
    Welcome,
)
from rtvc.engine.protocol.refusals import Refusal, Violation, message_of
from rtvc.engine.streams.block import check_block
from rtvc.engine.webrtc.jitter import BLOCK, RATE, JitterBuffer
from rtvc.engine.webrtc.peer import Tap, voice_track
from rtvc.engine.webrtc.speech import Decoder, Encoder, library
from rtvc.errors import DependencyError, RtvcError, ServiceError

if TYPE_CHECKING:
    from aiortc import RTCPeerConnection

Samples = NDArray[np.float32]
Answer = TypeVar("Answer")

OPEN_S = 10.0
"""Within this time a call is open and greeted."""
ANSWER_S = 20.0
"""Within this time a question is answered."""
UPLOAD_S = 120.0
"""Within this time an uploaded recording has become a voice."""
STRAGGLE_S = 0.1
"""Seconds beyond the network's unrest that the last packets of a session may take."""
GOODBYE_S = 1.0
"""Seconds that the server is given to take note of a goodbye."""
PIECE = 16_384
"""Bytes of a file in one message: data channels of some servers take no more than 64 KiB."""
UNSENT = 1 << 18
"""Bytes of a file that may wait to be sent."""
LARGEST_ANSWER = 65_536


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


class Call:
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
        self._news, self._turn = asyncio.Event(), asyncio.Lock()
        self._asked: tuple[type, asyncio.Future[Any]] | None = None
        self._problem: RtvcError | None = None
        self._connection: RTCPeerConnection
        self._channel: Any = None

    async def __aenter__(self) -> Self:
        from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        try:
            self._connection.addTrack(self._track)
            self._channel = self._connection.createDataChannel("rtvc")
            opened = asyncio.Event()
            self._channel.on("open", opened.set)
            self._channel.on("message", self._message)
            self._channel.on("close", self._lost)
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
            self.welcome = await self._ask(self.side.hello(self._token), Welcome)
            if self._voice is not None:
                await self.start(self._voice)
        except BaseException:
            await self._connection.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._channel.readyState == "open":
            self._problem = self._problem or ServiceError("the call is over: make another one")
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
            self._lost()

    def _lost(self) -> None:
        self._problem = self._problem or ServiceError("the call broke off: make another one")
        if self._asked and not self._asked[1].done():
            self._asked[1].set_exception(self._problem)
        self._news.set()

    def _heard(self, sequence: int, timestamp: int, payload: bytes) -> None:
        self.buffer.put(sequence, timestamp, payload, asyncio.get_running_loop().time())
        self._news.set()

    def _message(self, data: str | bytes) -> None:
        event = self.side.receive(data) if isinstance(data, str) else None
        if isinstance(event, Violation):
            self._problem = ServiceError(f"the server says nonsense ({event.error.message})")
        if isinstance(event, Error) and event.fatal:
            self._problem = Refusal.of(event)
        waits = self._asked is not None and not self._asked[1].done()
        if self._asked is not None and waits:
            if isinstance(event, self._asked[0]):
                self._asked[1].set_result(event)
            elif isinstance(event, Error):
                self._asked[1].set_exception(Refusal.of(event))
        self._news.set()

    async def _ask(
        self,
        text: str,
        wanted: type[Answer],
        pieces: "list[bytes] | tuple[()]" = (),
        patience: float = ANSWER_S,
    ) -> Answer:
        async with self._turn:
            if self._problem:
                raise self._problem
            answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            self._asked = wanted, answer
            try:
                self._channel.send(text)
                for piece in pieces:
                    while self._channel.bufferedAmount > UNSENT and not answer.done():
                        await asyncio.sleep(0.01)
                    if answer.done():
                        break
                    self._channel.send(piece)
                async with asyncio.timeout(patience):
                    return await answer
            except TimeoutError:
                raise ServiceError(
                    f"no answer came from {self.url} within {patience:g} s"
                ) from None
            finally:
                self._asked = None

    async def start(self, voice: VoiceChoice, **settings: Any) -> Started:
        """Opens a session; settings as of `call`.

        Raises:
            ConfigError: a setting that no session has, or an impossible value.
            Refusal: the server has no such voice, or no place.
        """
        fields = self._settings | settings
        asked = message_of(Start, voice=voice, sample_rate=RATE, format="opus", **fields)
        self.started = await self._ask(self.side.start(asked), Started)
        self.totals = None
        return self.started

    async def send(self, block: ArrayLike) -> None:
        """Sends a block (N,) of floats in [-1, 1] at 48 kHz, at once: at a microphone's pace.

        Raises:
            ServiceError: the call broke off.
        """
        if self._problem:
            raise self._problem
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
        self.totals = await self._ask(self.side.stop(), Stopped)
        self._news.set()
        return self.totals

    async def blocks(self) -> AsyncIterator[Samples]:
        """Converted audio, (N,) float32 at 48 kHz, each block when it is due; ends some packets
        after the session.

        Raises:
            ServiceError: the call broke off.
        """
        clock = asyncio.get_running_loop().time
        while True:
            self._news.clear()
            packet = self.buffer.take(clock())
            if packet is not None:
                yield self._decoder.decode(packet)
                continue
            due = self.buffer.due()
            if due is None and self.totals is not None:
                # What was sent before `stopped` may come after it.
                due = clock() + self.buffer.unrest + STRAGGLE_S
            if due is None and self._problem:
                raise self._problem
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

    async def update(
        self,
        *,
        voice: VoiceChoice | None = None,
        pitch: float | None = None,
        prosody: float | None = None,
        wet: float | None = None,
    ) -> Updated:
        """Changes the running session, without a click; returns what holds now.

        Raises:
            ConfigError: a value that no session can have.
        """
        changes = message_of(Update, voice=voice, pitch=pitch, prosody=prosody, wet=wet)
        return await self._ask(changes.text(), Updated)

    async def voices(self) -> tuple[str, ...]:
        """The names of the server's voices."""
        return (await self._ask(ListVoices().text(), VoiceList)).voices

    async def stats(self) -> Stats:
        """The session so far."""
        return await self._ask(AskStats().text(), Stats)

    async def upload(self, recording: Recording, name: str | None = None) -> VoiceReady:
        """Makes a voice of a recording of somebody.

        Args:
            recording: a file in any format that the server can decode, or its bytes.
            name: of the voice; by default made of the file's name and its contents.

        Raises:
            Refusal: the server cannot use it, or has such a name.
        """
        name, data = named(recording, name)
        announcement = next(iter(self.side.upload(name, data)))
        return await self._ask(str(announcement), VoiceReady, pieces_of(data), UPLOAD_S)


def pieces_of(data: bytes) -> list[bytes]:
    """A file as frames that a data channel takes."""
    starts = range(0, len(data), PIECE)
    return [
        Frame(UPLOAD | END * (at == starts[-1]), 0, index, 0, data[at : at + PIECE]).to_bytes()
        for index, at in enumerate(starts)
    ]


def post(url: str, offer: str, token: str | None = None) -> str:
    """The answer of a server to an offer.

    Raises:
        Refusal: it says no.
        ServiceError: it cannot be reached, or takes no calls.
    """
    address = websocket_address(url)
    http = address.replace("ws", "http", 1)
    target = http.removesuffix(PATH) + CALL_PATH if http.endswith(PATH) else http
    headers = {"Content-Type": "application/sdp", "Origin": origin_of(address)}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(target, offer.encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=OPEN_S) as response:
            return str(response.read(LARGEST_ANSWER).decode())
    except urllib.error.HTTPError as error:
        said = error.read(4_096).decode("utf-8", "replace").strip()
        with contextlib.suppress(ValueError):
            raise Refusal.of(Error.model_validate_json(said)) from error
        raise ServiceError(f"{target} turned us away (HTTP {error.code}: {said[:200]})") from error
    except (OSError, http_errors()) as error:
        raise ServiceError(
            f"{target} cannot be reached ({error}): is `rtvc serve --webrtc` running there?"
        ) from error


def http_errors() -> type[Exception]:
    """What a broken answer raises."""
    import http.client

    return http.client.HTTPException


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
    try:
        import aiortc  # noqa: F401
    except ImportError as error:
        raise DependencyError("calls need aiortc: pip install 'rtvc-engine[webrtc]'") from error
    return Call(url, voice, token, settings)
