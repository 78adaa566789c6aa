"""The client: `async with rtvc.clients.connect(url, voice="anna") as c:`, blocks go in, converted blocks come out."""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rtvc.clients.websocket.dial import Server
from rtvc.clients.websocket.flow import PATIENCE_S, Window
from rtvc.clients.websocket.link import Link
from rtvc.clients.websocket.recording import Recording, named
from rtvc.engine.server.messages import (
    AskStats,
    ListVoices,
    Start,
    Started,
    Stats,
    Stopped,
    Update,
    Updated,
    VoiceChoice,
    VoiceList,
    VoiceReady,
    Welcome,
)
from rtvc.engine.server.protocol import ClientSide
from rtvc.engine.server.streams import Audio
from rtvc.engine.session import check_block
from rtvc.errors import ServiceError

Samples = NDArray[np.float32]

FRAME_S = 0.25
"""Seconds of audio in a frame at most; longer blocks are cut."""
UPLOAD_S = 120.0
"""Within this time an uploaded recording has become a voice."""
SURPLUS_S = 12.0
"""Seconds of output beyond the window that may wait here: what a server keeps to send again, and some more."""


class Client:
    """One connection and its session; `connect` makes one, and it is used as an asynchronous context manager.

    Iterating over it gives the converted blocks, (N,) float32, until the session is over. Every queue is bounded: `send` waits while
    `window` seconds of input have gone out whose output was not taken.

    Attributes:
        welcome: what the server said about itself.
        started: what it said about the session; None before `start`.
        totals: its final counts, once it is over.
    """

    def __init__(self, server: Server, voice: VoiceChoice | None, window: float, settings: dict[str, Any]) -> None:
        self.side = ClientSide("rtvc python")
        self.link = Link(server, self.side, self._hear, self._end)
        self.window, self._voice, self._settings = Window(window), voice, settings
        self.welcome: Welcome | None = None
        self.started: Started | None = None
        self.totals: Stopped | None = None
        self.dropped = 0.0  # seconds that `offer` left out
        self._queue: deque[Audio] = deque()
        self._waiting = 0.0  # seconds in the queue
        self._problem: Exception | None = None
        self._changed = asyncio.Event()
        self._position = 0  # samples sent, the clock of those who bring none
        self._rest = np.zeros(0, np.float32)  # what does not fill a packet of the format yet
        self._gap = False

    async def __aenter__(self) -> Self:
        self.welcome = await self.link.open()
        try:
            if self._voice is not None:
                await self.start(self._voice, **self._settings)
        except BaseException:
            await self.link.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.link.close()

    @property
    def latency(self) -> float:
        """Seconds by which output lags input when every step and the network are instant."""
        return self._session.latency_ms / 1000

    @property
    def _session(self) -> Started:
        if self.started is None:
            raise ServiceError("no session runs on this connection: name a voice in `connect`, or call `start`")
        return self.started

    async def start(self, voice: VoiceChoice, **settings: Any) -> Started:
        """Opens a session, when `connect` was given no voice or the last one is over; settings as of `connect`."""
        asked = Start(voice=voice, **({"sample_rate": 24_000} | self._settings | settings))
        self._queue.clear()
        self.window.clear()
        self._waiting, self._position, self.totals, self._problem = 0.0, 0, None, None
        self.started = await self.link.ask(self.side.start(asked), Started)
        return self.started

    async def send(self, block: ArrayLike, captured: float | None = None) -> None:
        """Sends a block (N,) of floats in [-1, 1], when there is room for it.

        Args:
            block: mono samples at the session's rate, any number.
            captured: when the first sample was captured, in seconds of any clock; by default the time since the first block's beginning.

        Raises:
            ServiceError: the server refused or is gone, or nobody takes the converted audio.
        """
        for piece, when in self._pieces(check_block(block), captured):
            try:
                async with asyncio.timeout(PATIENCE_S):
                    while self.window.full and self._problem is None:
                        await self.change()
            except TimeoutError:
                if not self._queue:
                    raise ServiceError(f"the server has converted nothing for {PATIENCE_S:g} s: is it overloaded?") from None
                waiting = f"{self._waiting:.1f} s of converted audio wait and nobody takes them"
                raise ServiceError(f"{waiting}: iterate over the client while sending, or use `convert`") from None
            await self._out(piece, when)

    async def offer(self, block: ArrayLike, captured: float) -> bool:
        """Sends a block if there is room and a connection, and leaves it out (declared) if not: for live audio, which must not wait."""
        samples = check_block(block)
        if self._problem is None and (self.window.full or not self.link.up.is_set()):
            self._gap = True
            self.dropped += len(samples) / self._session.sample_rate
            return False
        for piece, when in self._pieces(samples, captured):
            await self._out(piece, when)
        return True

    def _pieces(self, samples: Samples, captured: float | None) -> Iterable[tuple[Samples, int]]:
        """Cuts a block into frames: samples and capture time in microseconds."""
        rate = self._session.sample_rate
        assert self.side.outgoing is not None
        block = self.side.outgoing.codec.block
        first = self._position / rate if captured is None else captured
        if block:
            first -= len(self._rest) / rate
            samples = np.concatenate([self._rest, samples])
            self._rest = samples[len(samples) - len(samples) % block :]
            samples = samples[: len(samples) - len(self._rest)]
        size = block or round(FRAME_S * rate)
        for at in range(0, len(samples), size):
            yield samples[at : at + size], round(1e6 * (first + at / rate))

    async def _out(self, piece: Samples, when: int) -> None:
        if self._problem is not None:
            raise self._problem
        frame = self.side.audio(piece, when, dropped=self._gap)
        self._gap = False
        self._position += len(piece)
        self.window.sent(when, len(piece) / self._session.sample_rate)
        await self.link.send(frame)

    async def finish(self) -> Stopped:
        """No more input follows: what is left comes back, the iteration ends, and the session's totals are returned."""
        if len(self._rest):
            assert self.side.outgoing is not None
            padding = np.zeros(self.side.outgoing.codec.block - len(self._rest), np.float32)
            await self.send(padding)
        self.totals = await self.link.ask(self.side.stop(), Stopped, patience=PATIENCE_S + self.window.seconds)
        self._changed.set()
        return self.totals

    async def change(self) -> None:
        """Waits until something happens: audio comes or is taken, the session ends or breaks off."""
        self._changed.clear()
        await self._changed.wait()

    def ready(self) -> list[Audio]:
        """Takes the converted audio that is here, without waiting.

        Raises:
            ServiceError: the session broke off.
        """
        taken = list(self._queue)
        if not taken and self._problem is not None:
            raise self._problem
        self._queue.clear()
        for audio in taken:
            self._take(audio)
        return taken

    def _take(self, audio: Audio) -> None:
        duration = len(audio.samples) / self._session.output_rate
        self._waiting -= duration
        self.window.taken(audio.timestamp, duration)
        self._changed.set()

    async def audio(self) -> AsyncIterator[Audio]:
        """Converted audio with its capture times, until the session is over.

        Raises:
            ServiceError: the session broke off.
        """
        while True:
            while not self._queue:
                if self.totals is not None:
                    return
                if self._problem is not None:
                    raise self._problem
                await self.change()
            audio = self._queue.popleft()
            self._take(audio)
            yield audio

    async def __aiter__(self) -> AsyncIterator[Samples]:
        async for audio in self.audio():
            if len(audio.samples):
                yield audio.samples

    async def convert(self, blocks: Iterable[ArrayLike] | AsyncIterable[ArrayLike]) -> AsyncIterator[Samples]:
        """Sends all blocks and gives the converted ones as they come; afterwards the session is over."""
        sender = asyncio.create_task(self._feed(blocks))
        try:
            async for samples in self:
                yield samples
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    async def _feed(self, blocks: Iterable[ArrayLike] | AsyncIterable[ArrayLike]) -> None:
        try:
            if isinstance(blocks, AsyncIterable):
                async for block in blocks:
                    await self.send(block)
            else:
                for block in blocks:
                    await self.send(block)
            await self.finish()
        except Exception as problem:
            self._end(problem)

    async def update(
        self, *, voice: VoiceChoice | None = None, pitch: float | None = None, prosody: float | None = None, wet: float | None = None
    ) -> Updated:
        """Changes the running session, without a click; returns what holds now."""
        return await self.link.ask(Update(voice=voice, pitch=pitch, prosody=prosody, wet=wet).text(), Updated)

    async def voices(self) -> tuple[str, ...]:
        """The names of the server's voices."""
        return (await self.link.ask(ListVoices().text(), VoiceList)).voices

    async def stats(self) -> Stats:
        """The session so far."""
        return await self.link.ask(AskStats().text(), Stats)

    async def upload(self, recording: Recording, name: str | None = None) -> VoiceReady:
        """Makes a voice of a recording of somebody.

        Args:
            recording: a file in any format that the server can decode, or its bytes.
            name: of the voice; by default made of the file's name and its contents.
        """
        name, data = named(recording, name)
        announcement, *pieces = self.side.upload(name, data)
        assert isinstance(announcement, str)
        return await self.link.ask(announcement, VoiceReady, pieces, UPLOAD_S)

    def _hear(self, audio: Audio) -> None:
        """Called by the link: queues what came."""
        self._queue.append(audio)
        self._waiting += len(audio.samples) / self._session.output_rate
        if self._waiting > self.window.seconds + SURPLUS_S:
            self._end(ServiceError(f"{self._waiting:.1f} s of audio came that nobody asked for: the server and this client do not fit"))
        self._changed.set()

    def _end(self, problem: Exception) -> None:
        """Called by the link, and by our own sender: the session breaks off."""
        self._problem = self._problem or problem
        self._changed.set()


def connect(
    url: str,
    voice: VoiceChoice | None = None,
    *,
    token: str | None = None,
    tls: ssl.SSLContext | None = None,
    window: float = 4.0,
    **settings: Any,
) -> Client:
    """A client of a server at `url`, to be used with `async with`.

    Args:
        url: `ws://host:port`, `wss://host`.
        voice: a voice of the server, or names and shares of several; None opens no session yet.
        token: what the server wants to see.
        tls: certificates to trust, in place of the system's.
        window: seconds of input that may be under way.
        settings: of the session: sample_rate (24000), output_rate, format (`s16`, `f32`, `opus`), block, pitch, prosody, wet,
            max_lag_ms (without it nothing is ever dropped), gate.

    Raises:
        Refusal: the server does not want us, or there is no such voice.
        ServiceError: it cannot be reached.
    """
    return Client(Server(url, token, tls), voice, window, settings)
