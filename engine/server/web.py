"""The plain-HTTP side of the port: health, metrics, the page's files; who may open a websocket, or
offer a call."""

import json
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from rtvc.engine.protocol.fields import CALL_PATH, PATH, Code
from rtvc.engine.protocol.refusals import Refusal
from rtvc.engine.server.posted import METHODS, Asked, Posted
from rtvc.engine.server.service import Service
from rtvc.errors import ConfigError

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request, Response

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".wav": "audio/wav",
}
"""The files that a page may consist of; nothing else in its folder is served."""
SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self'"
        " data:; media-src 'self' blob:; connect-src 'self'; frame-ancestors 'none'; base-uri"
        " 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self)",
    "Cache-Control": "no-cache",
}
LARGEST_FILE = 4 << 20
STATUS = {Code.MALFORMED: 400, Code.FULL: 503, Code.DRAINING: 503, Code.INTERNAL: 500}
"""Of the HTTP response to an offer that is refused."""

log = logging.getLogger("rtvc.serve")


def read_page(folder: Path | None) -> dict[str, tuple[bytes, str]]:
    """The page's files by their paths: read once, so that no request ever reaches the file system.

    Raises:
        ConfigError: no such folder, or no `index.html` in it.
    """
    if folder is None:
        return {}
    files = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix in TYPES and path.is_file() and path.stat().st_size <= LARGEST_FILE:
            files[f"/{path.name}"] = (path.read_bytes(), TYPES[path.suffix])
    if "/index.html" not in files:
        raise ConfigError(
            f"expected the folder of the browser page, got {folder} without index.html"
        )
    files["/"] = files["/index.html"]
    return files


class Web:
    """Answers requests before they become websockets.

    Args:
        service: whose health is asked for.
        page: folder of the browser page, served at `/`; None serves none.
        call: answers an offer, given the client's address; None takes none.
    """

    def __init__(
        self,
        service: Service,
        page: Path | None = None,
        call: Callable[[str, str], Awaitable[str]] | None = None,
    ) -> None:
        self.service, self.page, self.call = service, read_page(page), call

    def __call__(self, connection: "ServerConnection", request: "Request") -> "Response | None":
        """What `websockets` asks for every request: a response, or None to go on with the
        handshake."""
        path = request.path.partition("?")[0]
        if path == PATH:
            return self._admit(connection, request)
        if path in self.page:
            return reply(200, *self.page[path])
        service = self.service
        if path == "/healthz":
            text = (
                b"ok\n" if service.healthy else b"the model is not stepped: restart this server\n"
            )
            return reply(200 if service.healthy else 503, text, "text/plain; charset=utf-8")
        if path == "/readyz":
            state = {
                "ready": service.ready,
                "draining": service.draining,
                "sessions": len(service.sessions),
                "limit": service.most,
            }
            return reply(
                200 if service.ready else 503,
                json.dumps(state).encode() + b"\n",
                "application/json",
            )
        if path == "/metrics":
            return self._metrics(connection, request)
        return reply(404, b"there is nothing here\n", "text/plain; charset=utf-8")

    def reader(self, connection: "ServerConnection", begin: bytes) -> Posted | None:
        """Who reads a request that begins so; None for those of `__call__`."""
        if not begin.startswith(METHODS):
            return None
        return Posted(connection, self.posted, lambda status, text: plain(status, text))

    async def posted(self, connection: "ServerConnection", asked: Asked) -> "Response":
        """The answer to an offer, and to what a page elsewhere asks before it makes one."""
        request, address = asked.request, client_address(connection, self.service.proxies)
        if request.path.partition("?")[0] != CALL_PATH or self.call is None:
            return plain(404, b"nothing takes this here: calls need `rtvc serve --webrtc`\n")
        refused = self._admit(connection, request)
        if refused is None and asked.method == "POST":
            refused = self._bearer(address, request, "unauthorized")
        if refused is None and asked.method == "POST":
            refused = await self._offered(asked.body, address)
        response = refused or plain(204, b"")
        if response.status_code != 403:  # the page may read what it is told, being let in
            response.headers.update(_for_pages(request))
        return response

    async def _offered(self, offer: bytes, address: str) -> "Response":
        assert self.call is not None
        try:
            answer = await self.call(offer.decode("utf-8", "replace"), address)
        except Refusal as refusal:
            self.service.metrics.refusals.labels(refusal.code.value).inc()
            log.warning("refused code=%s address=%s", refusal.code.value, address)
            status = STATUS.get(refusal.code, 403)
            return reply(status, refusal.error.text().encode() + b"\n", "application/json")
        return reply(201, answer.encode(), "application/sdp")

    def _bearer(self, address: str, request: "Request", what: str) -> "Response | None":
        """None for whoever has the token, as `Authorization: Bearer TOKEN`, and for everybody where
        there is none; otherwise what to say."""
        service = self.service
        sent = request.headers.get_all("Authorization")
        kind, _, token = sent[0].partition(" ") if len(sent) == 1 else ("", "", "")
        given = SecretStr(token.strip()) if kind.lower() == "bearer" else None
        if service.access.token_is_right(given):
            return None
        if given is not None:
            service.failures.add(address)
        code = 429 if service.failures.too_many(address) else 401
        response = self._turn_away(code, what, address, b"send `Authorization: Bearer TOKEN`\n")
        response.headers["WWW-Authenticate"] = "Bearer"
        return response

    def _metrics(self, connection: "ServerConnection", request: "Request") -> "Response":
        address = client_address(connection, self.service.proxies)
        refused = self._bearer(address, request, "metrics")
        return refused or reply(200, *self.service.metrics.text())

    def _admit(self, connection: "ServerConnection", request: "Request") -> "Response | None":
        service, address = self.service, client_address(connection, self.service.proxies)
        headers = request.headers
        origins, hosts = headers.get_all("Origin"), headers.get_all("Host")
        origin, host = (values[0] if len(values) == 1 else None for values in (origins, hosts))
        if len(origins) > 1 or not service.access.origin_is_right(origin, host):
            text = (
                b"this origin is not allowed: programs send the server's own, who runs the server"
                b" can allow others with --origin\n"
            )
            return self._turn_away(403, "origin", address, text)
        greeted = [other for other in service.connections if other.greeted]
        same = sum(other.address == address for other in greeted)
        if (
            len(greeted) >= service.limits.connections
            or same >= service.limits.connections_per_address
        ):
            return self._turn_away(
                503, "connections", address, b"too many connections are open: try again later\n"
            )
        return None

    def _turn_away(self, status: int, code: str, address: str, text: bytes) -> "Response":
        self.service.metrics.refusals.labels(code).inc()
        log.warning("refused code=%s address=%s", code, address)
        return reply(status, text, "text/plain; charset=utf-8")


def client_address(connection: "ServerConnection", proxies: frozenset[str] = frozenset()) -> str:
    """The address of a client, without its port: one of the `proxies` names it in X-Forwarded-For,
    whose last entry is its own."""
    remote = connection.remote_address
    address = str(remote[0]) if remote else "unknown"
    forwarded = (
        connection.request.headers.get_all("X-Forwarded-For")
        if address in proxies and connection.request
        else []
    )
    return forwarded[-1].rpartition(",")[2].strip()[:64] if forwarded else address


def _for_pages(request: "Request") -> dict[str, str]:
    """What lets a page of the request's origin, which was let in, read the answer."""
    origin = request.headers.get("Origin")
    if origin is None:
        return {}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Headers": "Authorization, Content-Type",
        "Access-Control-Allow-Methods": "POST",
        "Vary": "Origin",
    }


def plain(status: int, text: bytes) -> "Response":
    """An HTTP response of plain text."""
    return reply(status, text, "text/plain; charset=utf-8")


def reply(status: int, body: bytes, kind: str) -> "Response":
    """An HTTP response that closes the connection."""
    from websockets.datastructures import Headers
    from websockets.http11 import Response

    headers = Headers(
        {"Content-Type": kind, "Content-Length": str(len(body)), "Connection": "close", **SECURITY}
    )
    return Response(status, HTTPStatus(status).phrase, headers, body)
