"""The client without `async`: a session that is pushed blocks like
`rtvc.engine.streams.session.Session`, and whole recordings at once."""

import asyncio
import threading
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from rtvc.audio.samples import Samples
from rtvc.clients.websocket.client import Client, connect
from rtvc.clients.websocket.recording import Recording
from rtvc.engine.protocol.messages import Stopped, VoiceReady

Result = TypeVar("Result")


class Remote:
    """A session on a server: `push` blocks of any size, get what is ready, `flush` at the end.

    Args:
        url: of the server.
        voice: a voice of the server, or names and shares of several; None opens no session yet.
        settings: what else `connect` takes.

    Raises:
        Refusal: the server does not want us.
        ServiceError: it cannot be reached.
    """

    def __init__(
        self, url: str, voice: str | dict[str, float] | None = None, **settings: Any
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="rtvc-remote", daemon=True
        )
        self._thread.start()
        try:
            self.client = self._run(self._enter(url, voice, settings))
        except BaseException:
            self._end()
            raise

    async def _enter(
        self, url: str, voice: str | dict[str, float] | None, settings: Mapping[str, Any]
    ) -> Client:
        client = connect(url, voice, **settings)
        return await client.__aenter__()

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Runs a coroutine in the thread of the connection and waits for its result."""
        future = self.spawn(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def spawn(self, work: Coroutine[Any, Any, Result]) -> "Future[Result]":
        """Starts a coroutine in the thread of the connection."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection."""
        if self._thread.is_alive():
            self._run(self.client.__aexit__())
            self._end()

    def _end(self) -> None:
        self._run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def start(self, voice: str | dict[str, float], **settings: Any) -> None:
        """Opens a session, as `Client.start`."""
        self._run(self.client.start(voice, **settings))

    def push(self, block: ArrayLike) -> Samples:
        """A block (N,) of floats -> everything that is here by now, (N',) float32; waits only while
        too much is under way."""
        return self._run(self._push(block))

    async def _push(self, block: ArrayLike) -> Samples:
        sender = asyncio.ensure_future(self.client.send(block))
        parts = list[Samples]()
        try:
            while True:
                parts += [audio.samples for audio in self.client.flow.ready()]
                if sender.done():
                    break
                changed = asyncio.ensure_future(self.client.flow.change())
                await asyncio.wait((sender, changed), return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
            await sender
        finally:
            sender.cancel()
        return joined(parts)

    def offer(self, block: ArrayLike, captured: float) -> bool:
        """See `Client.offer`: for live audio, which must not wait."""
        return self._run(self.client.offer(block, captured))

    def flush(self) -> Samples:
        """The rest of the stream; afterwards every input sample has its output, and `start` may
        begin another session."""
        return self._run(self._flush())

    async def _flush(self) -> Samples:
        await self.client.finish()
        return joined([audio.samples for audio in self.client.flow.ready()])

    @property
    def totals(self) -> Stopped | None:
        """The session's counts, after `flush`."""
        return self.client.totals

    @property
    def latency(self) -> float:
        """See `Client.latency`."""
        return self.client.latency

    def update(self, **changes: Any) -> None:
        """See `Client.update`."""
        self._run(self.client.update(**changes))

    def voices(self) -> tuple[str, ...]:
        """See `Client.voices`."""
        return self._run(self.client.voices())

    def voice_of(self, recording: Recording) -> tuple[str, float]:
        """See `Client.voice_of`."""
        return self._run(self.client.voice_of(recording))

    def upload(self, recording: Recording, name: str | None = None) -> VoiceReady:
        """See `Client.upload`."""
        return self._run(self.client.upload(recording, name))


def joined(parts: list[Samples]) -> Samples:
    """Blocks as one, (N,) float32."""
    return np.concatenate([np.zeros(0, np.float32), *parts])


def convert(
    url: str, x: ArrayLike, sample_rate: int, voice: str | dict[str, float], **settings: Any
) -> Samples:
    """A whole recording through a server: x (N,) floats at `sample_rate` Hz -> (M,) float32 of
    equal duration; settings as of `connect`."""
    with Remote(url, voice, sample_rate=sample_rate, **settings) as remote:
        return joined([remote.push(x), remote.flush()])
