"""The plain-HTTP side of the port: health, metrics, the page's files; and who may open a
websocket."""

import json
import logging
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from rtvc.engine.protocol.fields import PATH
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
    """

    def __init__(self, service: Service, page: Path | None = None) -> None:
        self.service, self.page = service, read_page(page)

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

    def _metrics(self, connection: "ServerConnection", request: "Request") -> "Response":
        """For whoever has the token, as `Authorization: Bearer TOKEN`; for everybody where there is
        none."""
        service, address = self.service, client_address(connection, self.service.proxies)
        sent = request.headers.get_all("Authorization")
        kind, _, token = sent[0].partition(" ") if len(sent) == 1 else ("", "", "")
        given = SecretStr(token.strip()) if kind.lower() == "bearer" else None
        if service.access.token_is_right(given):
            return reply(200, *service.metrics.text())
        if given is not None:
            service.failures.add(address)
        code = 429 if service.failures.too_many(address) else 401
        response = self._turn_away(
            code, "metrics", address, b"send `Authorization: Bearer TOKEN`\n"
        )
        response.headers["WWW-Authenticate"] = "Bearer"
        return response

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


def reply(status: int, body: bytes, kind: str) -> "Response":
    """An HTTP response that closes the connection."""
    from websockets.datastructures import Headers
    from websockets.http11 import Response

    headers = Headers(
        {"Content-Type": kind, "Content-Length": str(len(body)), "Connection": "close", **SECURITY}
    )
    return Response(status, HTTPStatus(status).phrase, headers, body)
