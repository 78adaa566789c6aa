"""A server on a port: the service behind `websockets`, until it is told to stop."""

import asyncio
import logging
import signal
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rtvc.engine.admission.entrance import (
    AT_ONCE,
    SEND_BUFFER,
    Entrance,
    Listener,
    listen,
    room_for,
)
from rtvc.engine.admission.guarded import guarded
from rtvc.engine.admission.logs import sparing
from rtvc.engine.protocol.fields import LARGEST_FRAME, PATH
from rtvc.engine.server.connection import Connection
from rtvc.engine.server.service import Service
from rtvc.engine.server.transport import Gone
from rtvc.engine.server.web import Web, client_address
from rtvc.engine.webrtc.door import Door
from rtvc.errors import ConfigError, needs_extra

if TYPE_CHECKING:
    from websockets.asyncio.server import Server, ServerConnection

OPEN_S = 5.0
"""Seconds that a handshake may take."""
FAREWELL_S = 2.0
"""Seconds that the closing of a connection may take, its last words included, before it is cut
off."""
PING_S = 20.0
"""Seconds between two pings of the transport, and until one without an answer ends the
connection."""

log = logging.getLogger("rtvc.serve")


@dataclass
class Socket:
    """A websocket as a `Transport`."""

    connection: "ServerConnection"
    address: str
    refused: Callable[[str], None]
    entrance: Entrance

    async def receive(self) -> str | bytes:
        """See `Transport.receive`."""
        from websockets.exceptions import ConnectionClosed

        try:
            return await self.connection.recv()
        except ConnectionClosed as error:
            if error.sent is not None and error.sent.code in (1007, 1009):
                self.refused("too_large" if error.sent.code == 1009 else "malformed")
            raise Gone(well=error.rcvd is not None and error.rcvd.code in (1000, 1001)) from None

    async def send(self, data: str | bytes) -> None:
        """See `Transport.send`."""
        from websockets.exceptions import ConnectionClosed

        try:
            await self.connection.send(data)
        except ConnectionClosed:
            raise Gone from None

    def greeted(self) -> None:
        """See `Transport.greeted`."""
        self.entrance.greeted(descriptor(self.connection))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """See `Transport.close`: the library alone would wait for a peer that does not read."""
        try:
            async with asyncio.timeout(FAREWELL_S):
                await self.connection.close(code, reason)
        finally:
            self.connection.transport.abort()


def descriptor(connection: "ServerConnection") -> int:
    """The number of a connection's socket; -1 when it is closed."""
    opened = connection.transport.get_extra_info("socket")
    return -1 if opened is None else int(opened.fileno())


def secure(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 or later with a certificate chain and its key, both PEM.

    Raises:
        ConfigError: they cannot be read or do not fit.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"{certificate} and {key} cannot be used for TLS ({error}): give a certificate chain"
            " and its key, as PEM"
        ) from error
    return context


@asynccontextmanager
async def serving(
    service: Service,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    page: Path | None = None,
    tls: ssl.SSLContext | None = None,
    reserved: Listener | None = None,
    webrtc: bool = False,
) -> AsyncIterator[int]:
    """A service on a port, for as long as the context lasts; gives the port, which is a free one
    for 0.

    With a `reserved` socket (`reserve`) that is taken in place of host and port; with `webrtc`
    calls are taken, too.

    Raises:
        DependencyError: when websockets is not installed, or what calls need.
        ConfigError: the address cannot be had, or the page is none.
    """
    with needs_extra("serve", "the server needs websockets"):
        from websockets.asyncio.server import serve

    quiet = logging.getLogger("rtvc.serve.websockets")
    quiet.setLevel(
        logging.CRITICAL
    )  # at lower levels it writes down frames, tokens included, and whatever strangers send

    def refused(code: str, address: str) -> None:
        service.metrics.refusals.labels(code).inc()
        log.warning("refused code=%s address=%s", code, address)

    async def handle(connection: "ServerConnection") -> None:
        address = client_address(connection, service.proxies)
        transport = Socket(connection, address, lambda code: refused(code, address), entrance)
        try:
            await Connection(service, transport).run()
        finally:
            with suppress(TimeoutError):
                await transport.close()

    limits = service.limits
    entrance = Entrance(
        room_for(limits.connections + limits.handshakes),
        limits.handshakes,
        limits.handshakes_per_address,
        OPEN_S + limits.hello_s,
        shared=service.proxies,
        refused=refused,
    )
    door = Door(service) if webrtc else None
    web = Web(service, page, None if door is None else door.answer)
    listening = listen(host, port, entrance, reserved)
    with sparing("rtvc.serve", "asyncio"):
        async with service:
            server: Server = await serve(
                handle,
                sock=listening,
                backlog=AT_ONCE,
                ssl=tls,
                ssl_handshake_timeout=None if tls is None else OPEN_S,
                process_request=web,
                create_connection=guarded(
                    lambda one: refused("control", client_address(one, service.proxies)), web.reader
                ),
                compression=None,  # audio does not shrink, and a compressed frame may be a bomb
                max_size=LARGEST_FRAME,
                max_queue=16,
                write_limit=SEND_BUFFER,
                open_timeout=OPEN_S,
                close_timeout=FAREWELL_S,
                ping_interval=PING_S,
                ping_timeout=PING_S,
                server_header=None,
                logger=quiet,
            )
            expiring = service.workers.task(expire(entrance))
            try:
                yield listening.getsockname()[1]
            finally:
                expiring.cancel()
                if door is not None:
                    await door.close()
                await shut(server, entrance)


async def expire(entrance: Entrance) -> None:
    """Looks for sockets that were not greeted in time, for as long as it is let."""
    while True:
        await asyncio.sleep(0.5)
        entrance.expire()


async def shut(server: "Server", entrance: Entrance) -> None:
    """Closes a server, and whatever does not let itself be closed."""
    server.close()
    try:
        async with asyncio.timeout(2 * FAREWELL_S):
            await asyncio.shield(server.wait_closed())
    except TimeoutError:
        entrance.close()
        await server.wait_closed()


async def run(
    service: Service,
    host: str,
    port: int,
    *,
    page: Path | None = None,
    tls: ssl.SSLContext | None = None,
    ready: Callable[[str], None] = lambda url: None,
    stop: asyncio.Event | None = None,
    reserved: Listener | None = None,
    webrtc: bool = False,
) -> None:
    """Serves until SIGTERM or SIGINT (or `stop`), then drains: sessions may end, new ones are
    refused. A second signal ends at once.

    Args:
        service: what is served.
        host: to listen on.
        port: to listen on; 0 takes a free one.
        page: folder of the browser page.
        tls: makes it https and wss.
        ready: hears the address of the websocket once it listens.
        stop: another way to tell it to stop.
        reserved: the socket of this address, kept by `reserve` while the service was made.
        webrtc: takes calls, too.
    """
    stop, at_once, loop = stop or asyncio.Event(), asyncio.Event(), asyncio.get_running_loop()

    def told() -> None:
        (at_once if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        with suppress(
            NotImplementedError, RuntimeError
        ):  # not on Windows, and not outside of the main thread
            loop.add_signal_handler(number, told)
    async with serving(
        service, host, port, page=page, tls=tls, reserved=reserved, webrtc=webrtc
    ) as bound:
        name = f"[{host}]" if ":" in host else host
        ready(f"{'ws' if tls is None else 'wss'}://{name}:{bound}{PATH}")
        await stop.wait()
        draining, hurry = asyncio.create_task(service.drain()), asyncio.create_task(at_once.wait())
        await asyncio.wait({draining, hurry}, return_when=asyncio.FIRST_COMPLETED)
        for task in (draining, hurry):
            task.cancel()
        await asyncio.gather(draining, hurry, return_exceptions=True)
