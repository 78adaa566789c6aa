"""A voice conversion for programs that live in one event loop and hand audio on in frames of 16-bit
samples: voice agents."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from rtvc.audio.samples import Samples
from rtvc.engine.protocol.fields import VoiceChoice
from rtvc.engine.protocol.formats import S16

if TYPE_CHECKING:
    from rtvc.clients.websocket.client import Client
    from rtvc.converter import VoiceConverter
    from rtvc.engine.streams.session import Session
    from rtvc.voices.voice import Voice

Result = TypeVar("Result")

PCM = S16()
"""What agents' frames hold."""


class Conversion(ABC):
    """One stream after the other in another voice; whoever is cancelled while it works leaves it
    whole."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def push(self, samples: Samples) -> Samples:
        """A block (N,) -> everything that is ready, (N',) float32."""
        return await self._whole(self._push(samples))

    async def flush(self) -> Samples:
        """The rest of the stream, (N',) float32; the next block begins another one."""
        return await self._whole(self._flush())

    async def drop(self) -> None:
        """Ends the stream, and nobody wants to hear the rest."""
        await self._whole(self._drop())

    async def close(self) -> None:
        """Ends it for good."""
        await self._whole(self._close())

    async def _whole(self, work: Coroutine[Any, Any, Result]) -> Result:
        async def alone() -> Result:
            async with self._turn:
                return await work

        return await asyncio.shield(asyncio.ensure_future(alone()))

    @abstractmethod
    async def _push(self, samples: Samples) -> Samples: ...

    @abstractmethod
    async def _flush(self) -> Samples: ...

    @abstractmethod
    async def _drop(self) -> None: ...

    @abstractmethod
    async def _close(self) -> None: ...


Maker: TypeAlias = Callable[[int], Conversion]
"""Makes a conversion of the rate, in Hz, of the first frame that comes."""


class Here(Conversion):
    """By the model in this process, in a thread of its own.

    Args:
        open_session: makes the session, in that thread.
    """

    def __init__(self, open_session: "Callable[[], Session]") -> None:
        super().__init__()
        self._open = open_session
        self._session: Session | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rtvc-agent")

    async def _in_thread(self, work: "Callable[[Session], Result]") -> Result:
        def run() -> Result:
            if self._session is None:
                self._session = self._open()
            return work(self._session)

        return await asyncio.get_running_loop().run_in_executor(self._thread, run)

    async def _push(self, samples: Samples) -> Samples:
        return await self._in_thread(lambda session: session.push(samples))

    async def _flush(self) -> Samples:
        def rest(session: "Session") -> Samples:
            samples = session.flush()
            session.reset()
            return samples

        return await self._in_thread(rest)

    async def _drop(self) -> None:
        await self._in_thread(lambda session: session.reset())

    async def _close(self) -> None:
        self._thread.shutdown(wait=False)


class There(Conversion):
    """By a server.

    Args:
        url: of the server.
        voice: a voice of the server, or names and shares of several.
        settings: what else `rtvc.clients.connect` takes.
    """

    def __init__(self, url: str, voice: VoiceChoice, settings: dict[str, Any]) -> None:
        super().__init__()
        self._url, self._voice, self._settings = url, voice, settings
        self._client: Client | None = None
        self._begun = False

    async def _begin(self) -> "Client":
        if self._client is None:
            from rtvc.clients.websocket.client import connect

            # Speech comes faster than anybody speaks: all of a sentence may be under way.
            self._client = connect(self._url, **({"window": 60.0} | self._settings))
            await self._client.__aenter__()
        if not self._begun:
            await self._client.start(self._voice)
            self._begun = True
        return self._client

    async def _push(self, samples: Samples) -> Samples:
        client = await self._begin()
        await client.send(samples)
        return self._ready(client)

    def _ready(self, client: "Client") -> Samples:
        parts = [audio.samples for audio in client.flow.ready()]
        return np.concatenate([np.zeros(0, np.float32), *parts])

    async def _flush(self) -> Samples:
        if self._client is None or not self._begun:
            return np.zeros(0, np.float32)
        self._begun = False
        await self._client.finish()
        return self._ready(self._client)

    async def _drop(self) -> None:
        await self._flush()

    async def _close(self) -> None:
        client, self._client, self._begun = self._client, None, False
        if client is not None:
            await client.__aexit__()


def here(converter: "VoiceConverter", voice: "Voice", **settings: Any) -> Maker:
    """A conversion in this process.

    Args:
        converter: of `rtvc.load()`.
        voice: to speak with.
        settings: what else `VoiceConverter.stream` takes: pitch, prosody, backend, …
    """
    return lambda rate: Here(lambda: converter.stream(voice, sample_rate=rate, **settings))


def there(url: str, voice: VoiceChoice, **settings: Any) -> Maker:
    """A conversion by a server.

    Args:
        url: of the server.
        voice: a voice of the server, or names and shares of several.
        settings: what else `rtvc.clients.connect` takes: token, pitch, prosody, …
    """
    return lambda rate: There(url, voice, settings | {"sample_rate": rate})


def decoded(data: bytes, channels: int) -> Samples:
    """Frames of 16-bit samples, channels side by side -> mono, (N,) float32."""
    if not data:
        return np.zeros(0, np.float32)
    samples: Samples = PCM.decode(bytes(data)).reshape(-1, channels).mean(1, dtype=np.float32)
    return samples


def encoded(samples: Samples, channels: int) -> bytes:
    """Mono, (N,) float32 -> frames of 16-bit samples, the same in every channel."""
    return PCM.encode(np.repeat(samples, channels))
