"""Requests with a body on the websocket's port, which `websockets` reads none of: an offer of a
call, and what browsers ask before they send one.

They are recognised by their first bytes, before the library's own parser sees them, and bounded
like everything else here; the socket was counted when it was accepted, and whoever is slow is cut
off with the handshake that never comes.
"""

import http.client
import io
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request, Response

LARGEST_HEAD = 8_192
"""Bytes of the request line and the headers."""
LARGEST_BODY = 32_768
"""Bytes of a body: offers of browsers take some 5,000."""
METHODS = (b"POST ", b"OPTIONS ")


@dataclass(frozen=True)
class Asked:
    """A request, complete.

    Attributes:
        method: `POST` or `OPTIONS`.
        request: path and headers.
        body: of it.
    """

    method: str
    request: "Request"
    body: bytes


class Posted:
    """One request as it arrives.

    Args:
        connection: on which it does.
        answer: makes the response.
        refuse: makes a response of a status and a text.
    """

    def __init__(
        self,
        connection: "ServerConnection",
        answer: "Callable[[ServerConnection, Asked], Awaitable[Response]]",
        refuse: "Callable[[int, bytes], Response]",
    ) -> None:
        self.connection, self.answer, self.refuse = connection, answer, refuse
        self._data, self._over = bytearray(), False

    def feed(self, data: bytes) -> None:
        """More of it came."""
        if self._over:
            return
        self._data += data
        head, separator, body = bytes(self._data).partition(b"\r\n\r\n")
        if len(head) > LARGEST_HEAD:
            self._end(self.refuse(431, b"the headers are too large\n"))
            return
        if not separator:
            return
        try:
            method, request, length = parse(head)
        except ValueError as problem:
            self._end(self.refuse(400, f"{problem}\n".encode()))
            return
        if length > LARGEST_BODY or len(body) > length:
            self._end(self.refuse(413, b"the body is too large\n"))
        elif len(body) == length:
            self._over = True
            self.connection.request = request
            task = self.connection.loop.create_task(self._reply(Asked(method, request, body)))
            self._task = task  # a task that nobody holds may be collected

    async def _reply(self, asked: Asked) -> None:
        self._end(await self.answer(self.connection, asked))

    def _end(self, response: "Response") -> None:
        self._over = True
        transport = self.connection.transport
        if not transport.is_closing():
            transport.write(response.serialize())
            transport.close()


def parse(head: bytes) -> "tuple[str, Request, int]":
    """Method, path and headers, and length of the body, of the head of a request.

    Raises:
        ValueError: it is none, or its body has no length.
    """
    from websockets.datastructures import Headers
    from websockets.http11 import Request

    line, _, rest = head.partition(b"\r\n")
    parts = line.decode("latin-1").split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise ValueError("expected `METHOD PATH HTTP/1.1`")
    try:
        fields = http.client.parse_headers(io.BytesIO(rest + b"\r\n\r\n"))
    except http.client.HTTPException as error:
        raise ValueError("the headers cannot be read") from error
    lengths = fields.get_all("Content-Length", [])
    if "Transfer-Encoding" in fields or len(lengths) > 1:
        raise ValueError("expected a body with one Content-Length")
    length = lengths[0] if lengths else "0"
    if not (length.isascii() and length.isdigit() and len(length) < 10):
        raise ValueError("expected a number as Content-Length")
    return parts[0], Request(parts[1], Headers(fields.items())), int(length)
