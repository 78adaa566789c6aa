"""The client: `async with rtvc.clients.connect(url, voice="anna") as c:`, blocks go in, converted
blocks come out."""

import asyncio
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from pydantic import SecretStr

from rtvc.audio.samples import Samples
from rtvc.clients.websocket.asking import UPLOAD_S, Answer, Asking
from rtvc.clients.websocket.backpressure import PATIENCE_S, Flow
from rtvc.clients.websocket.dial import Server
from rtvc.clients.websocket.link import Link
from rtvc.clients.websocket.recording import Recording, named
from rtvc.clients.websocket.refusal import Refusal
from rtvc.engine.protocol.client_side import ClientSide
from rtvc.engine.protocol.fields import Code, VoiceChoice
from rtvc.engine.protocol.messages import (
    Control,
    Controlled,
    Message,
    Start,
    Started,
    Stopped,
    VoiceReady,
    Welcome,
)
from rtvc.engine.protocol.refusals import message_of
from rtvc.engine.protocol.streams import Audio
from rtvc.engine.streams.block import check_block
from rtvc.errors import ConfigError, RtvcError, ServiceError

FRAME_S = 0.25
"""Seconds of audio in a frame at most; longer blocks are cut."""
UNKNOWN_SPEECH = 10.0
"""Seconds of speech that a voice counts for, among several, when nobody says."""


class Client(Asking):
    """One connection and its session; `connect` makes one, and it is used as an asynchronous
    context manager.

    Iterating over it gives the converted blocks, (N,) float32, until the session is over. Every
    queue is bounded: `send` waits while `window` seconds of input have gone out whose output was
    not taken.

    Attributes:
        welcome: what the server said about itself.
        started: what it said about the session; None before `start`.
        totals: the session's final counts, once it is over.
        dropped: seconds that `offer` left out.
        made: what the server said of each recording that was uploaded on this connection, by name.
    """

    def __init__(
        self, server: Server, voice: VoiceChoice | None, window: float, settings: dict[str, Any]
    ) -> None:
        self.side = ClientSide("rtvc python", ("silence", "acknowledge"))
        self.link = Link(server, self.side, lambda audio: self.flow.hear(audio), self._lost)
        self.flow = Flow(window, 24_000)
        self.welcome: Welcome | None = None
        self.started: Started | None = None
        self.totals: Stopped | None = None
        self.dropped = 0.0
        self._window, self._voice, self._settings = window, voice, settings
        self.made: dict[str, VoiceReady] = {}
        self._position = 0  # samples sent: the clock of those who bring none
        self._rest = np.zeros(0, np.float32)  # what does not fill a packet of the format yet
        self._gap = False

    async def __aenter__(self) -> Self:
        self.welcome = await self.link.open()
        try:
            if self._voice is not None:
                await self.start(self._voice)
        except BaseException:
            await self.link.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.link.close()

    def _lost(self, problem: RtvcError) -> None:
        """Called by the link: there is no connection any more."""
        self.flow.end(problem)

    @property
    def problem(self) -> Exception | None:
        """What broke the session off, if anything did."""
        return self.flow.problem

    @property
    def latency(self) -> float:
        """Seconds by which output lags input when every step and the network are instant."""
        return self._session.latency_ms / 1000

    @property
    def _session(self) -> Started:
        if self.started is None:
            raise ServiceError(
                "no session runs on this connection: name a voice in `connect`, or call `start`"
            )
        return self.started

    async def start(self, voice: VoiceChoice, **settings: Any) -> Started:
        """Opens a session, when `connect` was given no voice or the last session is over; settings
        as of `connect`.

        Raises:
            ConfigError: a setting that no session has, or an impossible value.
            Refusal: the server has no such voice, or no place.
        """
        fields = {"sample_rate": 24_000} | self._settings | settings
        if unknown := set(fields) - set(Start.model_fields):
            raise ConfigError(
                f"expected settings out of {', '.join(Start.model_fields)}, got"
                f" {', '.join(sorted(unknown))}"
            )
        start = message_of(Start, voice=voice, **fields)
        self.flow = Flow(self._window, start.output_rate or start.sample_rate)
        self._position, self._gap, self.totals, self._rest = 0, False, None, self._rest[:0]
        self.started = await self.link.ask(lambda: self.side.start(start), Started)
        return self.started

    async def send(self, block: ArrayLike, captured: float | None = None) -> None:
        """Sends a block (N,) of floats in [-1, 1], when there is room for it.

        Args:
            block: mono samples at the session's rate, any number.
            captured: when the first sample was captured, in seconds of any clock; by default the
                time since the first block's beginning.

        Raises:
            ServiceError: the server refused or is gone, or nobody takes the converted audio.
        """
        for piece, when in self._pieces(check_block(block), captured):
            await self.flow.room()
            await self._out(piece, when)

    async def offer(self, block: ArrayLike, captured: float) -> bool:
        """Sends a block if there is room and a connection, and leaves it out (declared) if not: for
        live audio, which must not wait."""
        samples = check_block(block)
        if self.problem is None and (self.flow.window.full or not self.link.up.is_set()):
            self._gap = True
            self.dropped += len(samples) / self._session.sample_rate
            return False
        for piece, when in self._pieces(samples, captured):
            await self._out(piece, when)
        return True

    def _pieces(self, samples: Samples, captured: float | None) -> Iterable[tuple[Samples, int]]:
        """Cuts a block into frames: samples and capture time in microseconds."""
        rate = self._session.sample_rate
        block = self.side.outgoing.codec.block if self.side.outgoing else 0
        first = self._position / rate if captured is None else captured
        if block:
            first -= 0 if captured is None else len(self._rest) / rate
            samples = np.concatenate([self._rest, samples])
            self._rest = samples[len(samples) - len(samples) % block :]
            samples = samples[: len(samples) - len(self._rest)]
        size = block or round(FRAME_S * rate)
        for at in range(0, len(samples), size):
            yield samples[at : at + size], round(1e6 * (first + at / rate))

    async def _out(self, piece: Samples, when: int) -> None:
        if self.problem is not None:
            raise self.problem
        frame = self.side.audio(piece, when, dropped=self._gap)
        self._gap = False
        self._position += len(piece)
        self.flow.window.sent(when, len(piece) / self._session.sample_rate)
        await self.link.send(frame)

    async def finish(self) -> Stopped:
        """No more input follows: what is left comes back, the iteration ends, and the session's
        totals are returned."""
        if len(self._rest) and self.side.outgoing:
            await self.send(np.zeros(self.side.outgoing.codec.block - len(self._rest), np.float32))
        self.totals = await self.link.ask(
            self.side.stop, Stopped, patience=PATIENCE_S + self._window
        )
        self.flow.end()
        return self.totals

    async def audio(self) -> AsyncIterator[Audio]:
        """Converted audio with its capture times, until the session is over.

        Raises:
            ServiceError: the session broke off.
        """
        while (audio := await self.flow.next()) is not None:
            yield audio

    async def __aiter__(self) -> AsyncIterator[Samples]:
        async for audio in self.audio():
            if len(audio.samples):
                yield audio.samples

    async def convert(
        self, blocks: Iterable[ArrayLike] | AsyncIterable[ArrayLike]
    ) -> AsyncIterator[Samples]:
        """Sends all blocks and gives the converted ones as they come; afterwards the session is
        over."""
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
            self.flow.end(problem)

    async def _ask(self, message: Message, expected: type[Answer]) -> Answer:
        return await self.link.ask(message.text, expected)

    async def control(self, secret: str) -> Controlled:
        """From now on `update` and `stats` are about another connection's session, that which was
        begun with this secret.

        Raises:
            Refusal: none runs.
        """
        return await self._ask(message_of(Control, control=SecretStr(secret)), Controlled)

    async def _upload(self, name: str, data: bytes) -> VoiceReady:
        announcement, *pieces = self.side.upload(name, data)
        ready = await self.link.ask(lambda: str(announcement), VoiceReady, pieces, UPLOAD_S)
        self.made[ready.name] = ready
        return ready

    async def voice_of(self, recording: Recording) -> tuple[str, float]:
        """The voice of a recording, uploaded unless the server has it: its name, and how many
        seconds of speech it counts for."""
        name, _ = named(recording)
        if name in await self.voices():
            return name, UNKNOWN_SPEECH
        try:
            return name, (await self.upload(recording)).speech or UNKNOWN_SPEECH
        except (
            Refusal
        ) as refusal:  # it has so many voices that it names only some, or somebody was quicker
            if refusal.code is not Code.NAME_TAKEN:
                raise
            return name, UNKNOWN_SPEECH


def connect(
    url: str,
    voice: VoiceChoice | None = None,
    *,
    token: str | None = None,
    tls: ssl.SSLContext | None = None,
    control: str | None = None,
    window: float = 4.0,
    **settings: Any,
) -> Client:
    """A client of a server at `url`, to be used with `async with`.

    Args:
        url: `ws://host:port`, `wss://host`.
        voice: a voice of the server, or names and shares of several; None opens no session yet.
        token: what the server wants to see.
        tls: certificates to trust, in place of the system's.
        control: a secret of 16 characters or more by which others may control the session.
        window: seconds of input that may be under way.
        settings: of the session: sample_rate (24000), output_rate, format (`s16`, `f32`, `opus`),
            block, pitch, prosody, wet, max_lag_ms (without it nothing is ever dropped), gate.

    Raises:
        ConfigError: a setting that no session has.
        Refusal: the server does not want us, or there is no such voice.
        ServiceError: it cannot be reached.
    """
    return Client(Server(url, token, tls, control), voice, window, settings)
