"""The local HTTP endpoint of a running conversion: its page, and what everything else asks.

Only programs on this machine reach it, and only with the token get an answer. A page of somebody
else's that has made its name point here (DNS rebinding) names itself in the Host header and is sent
away; it could not send the token either, which travels in a header that no form can set.
"""

import asyncio
import hmac
import json
import logging
import secrets
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rtvc.clients.control.change import Change, parsed
from rtvc.clients.control.runtime import Address
from rtvc.errors import ConfigError, DependencyError, RtvcError, ServiceError

if TYPE_CHECKING:
    from aiohttp import web

Handler = Callable[["web.Request"], Awaitable["web.StreamResponse"]]

HOST = "127.0.0.1"
EVENT_S = 0.1
"""Seconds between two lines of `/v1/events`."""
LARGEST_CHANGE = 16_384
"""Bytes of a change."""
LARGEST_RECORDING = 64 << 20
"""Bytes of a recording that is to become a voice."""
START_S = 10.0
"""Seconds within which it must listen."""
SILENT = logging.getLogger("rtvc.control.http")
"""Takes what the HTTP library says of requests that are none: any program on this machine may send
some, and they shall not fill a terminal with tracebacks."""
SILENT.setLevel(logging.CRITICAL + 1)

log = logging.getLogger("rtvc.control")


class Desk(Protocol):
    """What is controlled."""

    def status(self) -> dict[str, Any]:
        """How it is doing; quick, and safe from any thread."""
        ...

    def change(self, change: Change) -> None:
        """Carries out a change; may take its time."""
        ...

    def devices(self) -> list[dict[str, Any]]:
        """The sound devices that there are."""
        ...

    def voice_of(self, name: str, recording: bytes) -> dict[str, Any]:
        """Makes a voice of a recording; says how good it is."""
        ...

    def voice_of_microphone(self, name: str, seconds: float) -> dict[str, Any]:
        """The same of what is said from now on."""
        ...


class Endpoint:
    """Answers requests; `opened` gives it a thread and a port.

    Args:
        desk: what is controlled.
        token: that every request for more than the page's files must carry.
        page: files by their paths, with their types, as `rtvc.engine.server.web.read_page` gives.
    """

    def __init__(self, desk: Desk, token: str, page: dict[str, tuple[bytes, str]]) -> None:
        self.desk, self.token, self.page = desk, token, page
        self.port = 0
        self._changes = ThreadPoolExecutor(1, "rtvc-changes")
        self._voices = ThreadPoolExecutor(1, "rtvc-voices")

    def application(self) -> "web.Application":
        """The routes."""
        from aiohttp import web

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._guard(request, handler)

        app = web.Application(middlewares=[guard])
        app.router.add_get("/v1/status", self._status)
        app.router.add_get("/v1/events", self._events)
        app.router.add_post("/v1/control", self._control)
        app.router.add_get("/v1/devices", self._devices)
        app.router.add_post("/v1/voices/{name}", self._voice)
        app.router.add_post("/v1/voices/{name}/microphone", self._microphone)
        app.router.add_get("/{path:.*}", self._file)
        return app

    def close(self) -> None:
        """Ends its threads."""
        for executor in (self._changes, self._voices):
            executor.shutdown(wait=False, cancel_futures=True)

    async def _guard(self, request: "web.Request", handler: Handler) -> "web.StreamResponse":
        hosts = {f"{name}:{self.port}" for name in (HOST, "localhost", "[::1]")}
        if request.headers.getall("Host", []) != [request.host] or request.host not in hosts:
            return refused(403, "this name is not this machine's: use 127.0.0.1")
        origin = request.headers.get("Origin")
        if origin is not None and origin.removeprefix("http://") not in hosts:
            return refused(403, "pages of other origins are not answered")
        if request.path.startswith("/v1/"):
            kind, _, given = request.headers.get("Authorization", "").partition(" ")
            sent = given.strip().encode("utf-8", "surrogateescape")  # bytes, whatever they are
            right = hmac.compare_digest(sent, self.token.encode())
            if kind.lower() != "bearer" or not right:
                return refused(401, "send `Authorization: Bearer TOKEN`, see docs/live.md")
        if "Content-Encoding" in request.headers:
            return refused(415, "send it as it is, without a Content-Encoding")
        return await self._answered(request, handler)

    async def _answered(self, request: "web.Request", handler: Handler) -> "web.StreamResponse":
        """What a handler says, or why it does not."""
        from aiohttp import web

        try:
            return await handler(request)
        except TooLargeError as error:
            return refused(413, str(error))
        except (ConfigError, ServiceError) as error:
            return refused(400 if isinstance(error, ConfigError) else 502, str(error))
        except RtvcError as error:
            return refused(409, str(error))
        except web.RequestPayloadError:
            return refused(400, "what was announced did not come whole: send it again")
        except (web.HTTPException, ConnectionError):
            raise
        except Exception:
            log.exception("%s %r failed", request.method, request.path)
            return refused(500, "something went wrong here: see what `rtvc live` says")

    async def _status(self, request: "web.Request") -> "web.Response":
        return answer(self.desk.status())

    async def _events(self, request: "web.Request") -> "web.StreamResponse":
        """A line of JSON ten times a second, for as long as the client reads."""
        from aiohttp import web

        from rtvc.engine.server.web import SECURITY

        response = web.StreamResponse(headers={**SECURITY, "Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        try:
            while True:
                await response.write(json.dumps(self.desk.status()).encode() + b"\n")
                await asyncio.sleep(EVENT_S)
        except ConnectionError:
            return response

    async def _control(self, request: "web.Request") -> "web.Response":
        change = parsed(await body_of(request, LARGEST_CHANGE, "a change"))
        await self._in(self._changes, self.desk.change, change)
        return answer(self.desk.status())

    async def _devices(self, request: "web.Request") -> "web.Response":
        return answer({"devices": await self._in(self._changes, self.desk.devices)})

    async def _voice(self, request: "web.Request") -> "web.Response":
        name = request.match_info["name"]
        data = await body_of(request, LARGEST_RECORDING, "a recording")
        return answer(await self._in(self._voices, self.desk.voice_of, name, data))

    async def _microphone(self, request: "web.Request") -> "web.Response":
        name, seconds = request.match_info["name"], request.query.get("seconds", "10")
        try:
            length = float(seconds)
        except ValueError:
            raise ConfigError(f"expected a number of seconds, got {seconds!r}") from None
        work = self.desk.voice_of_microphone
        return answer(await self._in(self._voices, work, name, length))

    async def _file(self, request: "web.Request") -> "web.Response":
        from aiohttp import web

        from rtvc.engine.server.web import SECURITY

        content = self.page.get(request.path)
        if content is None:
            return refused(404, "there is nothing here")
        body, kind = content
        return web.Response(body=body, headers={**SECURITY, "Content-Type": kind})

    async def _in(self, executor: ThreadPoolExecutor, work: Callable[..., Any], *given: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(executor, work, *given)


class TooLargeError(Exception):
    """More came than is taken."""


async def body_of(request: "web.Request", most: int, what: str) -> bytes:
    """The bytes that came with a request, however they were sent.

    Raises:
        TooLargeError: they are more than `most`; the rest is not read.
    """
    body = bytearray()
    if (request.content_length or 0) <= most:
        async for part in request.content.iter_any():
            body += part
            if len(body) > most:
                break
        else:
            return bytes(body)
    raise TooLargeError(f"{what} has at most {most} bytes")


def answer(found: dict[str, Any], status: int = 200) -> "web.Response":
    """JSON."""
    from aiohttp import web

    from rtvc.engine.server.web import SECURITY

    body = json.dumps(found).encode()
    return web.Response(
        body=body, status=status, headers={**SECURITY, "Content-Type": "application/json"}
    )


def refused(status: int, why: str) -> "web.Response":
    """JSON that says why."""
    return answer({"error": why}, status)


@contextmanager
def opened(
    desk: Desk, *, pid: int, page: Path | None = None, port: int = 0, token: str | None = None
) -> Iterator[Address]:
    """An endpoint in a thread of its own, for as long as the block runs; gives its address.

    Args:
        desk: what is controlled.
        pid: told to whoever looks for it.
        page: folder of the page, with files of the folder above it as well; None serves none.
        port: 0 takes a free one.
        token: None makes one.

    Raises:
        DependencyError: aiohttp is not installed.
        ServiceError: the port cannot be had.
    """
    try:
        from aiohttp import web
    except ImportError as error:
        raise DependencyError(
            "remote control and the page need aiohttp: pip install 'rtvc-engine[live]'"
        ) from error
    from rtvc.engine.server.web import read_page

    files = {} if page is None else read_page(page.parent) | read_page(page)
    endpoint = Endpoint(desk, token or secrets.token_urlsafe(24), files)
    loop, ready, problems = asyncio.new_event_loop(), threading.Event(), list[OSError]()
    runner = web.AppRunner(
        endpoint.application(), access_log=None, logger=SILENT, shutdown_timeout=0.5
    )

    async def listen() -> None:
        await runner.setup()
        site = web.TCPSite(runner, HOST, port)
        await site.start()
        endpoint.port = int(runner.addresses[0][1])

    def work() -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(listen())
        except OSError as error:
            problems.append(error)
            return
        finally:
            ready.set()
        loop.run_forever()

    thread = threading.Thread(target=work, name="rtvc-endpoint", daemon=True)
    thread.start()
    ready.wait(START_S)
    if problems:
        raise ServiceError(
            f"port {port} of {HOST} cannot be had ({problems[0].strerror}): name another with"
            " --control-port"
        ) from problems[0]
    try:
        yield Address(f"http://{HOST}:{endpoint.port}", endpoint.token, pid)
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(START_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(START_S)
        loop.close()
        endpoint.close()
