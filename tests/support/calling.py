"""A small client of the server, made of the protocol's own sans-I/O half: it imports no torch, so
that its process starts fast."""

import asyncio
import time

import numpy as np

from rtvc.engine.protocol.client_side import ClientSide
from rtvc.engine.protocol.messages import Error, Resumed, Start, Started, Stopped, Welcome
from rtvc.engine.protocol.refusals import Violation
from rtvc.engine.protocol.streams import Audio


class Refusal(Exception):
    """The server sent an error."""


class Client:
    """A client over one websocket at a time."""

    def __init__(self, url, token=None, origin=True, forwarded=None):
        self.url, self.token = url, token
        self.origin = url.replace("ws", "http", 1).removesuffix("/v1") if origin is True else origin
        self.headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
        self.side = ClientSide("test")
        self.socket = None
        self.audio, self.messages, self.reader = [], None, None

    async def __aenter__(self):
        await self.connect()
        return self

    async def __aexit__(self, *_):
        await self.close()

    async def connect(self):
        from websockets.asyncio.client import connect

        settings = {"origin": self.origin, "additional_headers": self.headers}
        self.socket = await connect(
            self.url, **settings, compression=None, max_size=None, ping_interval=None
        )
        self.messages = asyncio.Queue()
        self.reader = asyncio.create_task(self._read(self.socket, self.messages))
        await self.send(self.side.hello(self.token))
        await self.expect(Welcome)

    async def close(self):
        self.reader.cancel()
        await self.socket.close()

    def lose(self):
        """Breaks the connection without a word."""
        self.reader.cancel()
        self.socket.transport.abort()

    async def send(self, data):
        await self.socket.send(data)

    async def _read(self, socket, messages):
        from websockets.exceptions import ConnectionClosed

        try:
            async for data in socket:
                event = self.side.receive(data)
                if isinstance(event, Audio):
                    self.audio.append(event)
                    self.heard(event)
                elif event is not None:
                    await messages.put(event)
        except ConnectionClosed:
            pass
        await messages.put(None)

    def heard(self, audio):
        """Called for every frame of audio."""

    async def expect(self, kind, seconds=60.0):
        """The next message, which must be of this kind; other errors become `Refusal`."""
        async with asyncio.timeout(seconds):
            while True:
                message = await self.messages.get()
                assert not isinstance(message, Violation), message
                if isinstance(message, kind):
                    return message
                if isinstance(message, Error) or message is None:
                    raise Refusal(message)

    async def start(self, **settings):
        await self.send(
            self.side.start(
                Start(**({"sample_rate": 24_000, "format": "f32", "voice": "one"} | settings))
            )
        )
        return await self.expect(Started)

    async def speak(self, samples, block=480, rate=24_000, paced=False, began=None):
        """Sends samples in blocks, as fast as possible or at the pace of a microphone."""
        began = time.perf_counter() if began is None else began
        for at in range(0, len(samples), block):
            if paced:
                await asyncio.sleep(max(0.0, began + (at + block) / rate - time.perf_counter()))
            await self.send(
                self.side.audio(samples[at : at + block], round(1e6 * (began + at / rate)))
            )

    async def stop(self):
        await self.send(self.side.stop())
        return await self.expect(Stopped)

    async def resume(self):
        """A new connection that takes the session up again."""
        await self.connect()
        await self.send(self.side.resume())
        for frame in self.side.again(await self.expect(Resumed)):
            await self.send(frame)

    def samples(self):
        """All audio so far, its sequence checked."""
        assert [audio.sequence for audio in self.audio] == list(range(len(self.audio)))
        return np.concatenate([np.zeros(0, np.float32), *[audio.samples for audio in self.audio]])


def noise(samples, seed=0, level=0.1):
    return (np.random.default_rng(seed).standard_normal(samples) * level).astype(np.float32)


async def refused(answer):
    """The error with which the server refuses what is awaited."""
    try:
        await answer
    except Refusal as refusal:
        return refusal.args[0]
    raise AssertionError("nothing was refused")


async def until(condition, seconds=60.0):
    """Waits for something that must happen; how long it may take is up to the machine."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
