"""A server in a thread of its own, and a network path that can be cut: for clients that are tested
from outside."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from serving import make_service

from rtvc.engine.server.app import serving


@contextmanager
def thread_of(work) -> Iterator:
    """Runs an asynchronous context manager in another thread; gives what it gives."""
    loop, leave, ready, found = asyncio.new_event_loop(), asyncio.Event(), threading.Event(), []

    async def main():
        try:
            async with work() as given:
                found.append(given)
                ready.set()
                await leave.wait()
        finally:
            ready.set()

    task = loop.create_task(main())

    def run():
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait(60)
    if not found:
        thread.join(5)
        raise task.exception() or AssertionError("the server did not start")
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(leave.set)
        thread.join(120)
        assert not thread.is_alive(), "the server does not end"


@contextmanager
def background(folder: Path, **settings) -> Iterator:
    """A server, as `serving.served`, in a thread; gives the service and its address `ws://…/v1`."""
    page, tls = settings.pop("page", None), settings.pop("tls", None)

    @asynccontextmanager
    async def work():
        service = make_service(folder, **settings)
        async with serving(service, page=page, tls=tls) as port:
            yield service, f"ws{'s' if tls else ''}://127.0.0.1:{port}/v1"

    with thread_of(work) as given:
        yield given


class Route:
    """A network path to a server: a port that forwards, and can be cut and closed."""

    def __init__(self, target: str) -> None:
        self.port, self.open, self.connections, self.passed = urlsplit(target).port, True, set(), 0
        self.cuts: list[int] = []
        self.stalled = False  # while set, nothing passes, and nothing breaks
        self.handlers: set[asyncio.Task] = set()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.loop = asyncio.get_running_loop()
        self.url = f"ws://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_):
        self.server.close()
        self.cut()
        await asyncio.gather(*self.handlers, return_exceptions=True)

    def cut(self) -> None:
        """Breaks every connection without a word."""
        for writer in list(self.connections):
            writer.transport.abort()

    async def _connect(self, reader, writer):
        self.handlers.add(asyncio.current_task())
        if not self.open:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.connections |= {writer, far_writer}
        pumps = [
            asyncio.create_task(self._pump(reader, far_writer, True)),
            asyncio.create_task(self._pump(far_reader, writer, False)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for end in (writer, far_writer):
            end.transport.abort()
            self.connections.discard(end)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, reader, writer, upwards):
        try:
            while data := await reader.read(4096):
                while self.stalled:
                    await asyncio.sleep(0.02)
                writer.write(data)
                await writer.drain()
                self.passed += len(data) if upwards else 0
                if self.cuts and self.passed >= self.cuts[0]:
                    self.cuts.pop(0)
                    return
        except OSError:
            return
