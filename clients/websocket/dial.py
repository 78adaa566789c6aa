"""Getting connected: one socket, greeted and ready for questions."""

import asyncio
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from rtvc.clients.websocket.address import origin_of, websocket_address
from rtvc.clients.websocket.refusal import Refusal
from rtvc.engine.protocol.client_side import ClientSide
from rtvc.engine.protocol.fields import LARGEST_REPLY
from rtvc.engine.protocol.messages import Error, Welcome
from rtvc.engine.protocol.refusals import Violation
from rtvc.errors import ProtocolError, ServiceError, needs_extra

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

Answer = TypeVar("Answer")

OPEN_S = 10.0
"""Within this time a connection is open and greeted."""
BEAT_S = 4.0
"""How often the path is tried; a path that is silent for as long again counts as lost."""


@dataclass(frozen=True)
class Server:
    """Where a server is and how it is spoken to.

    Attributes:
        url: its address, as people write it.
        token: what it wants to see.
        tls: certificates to trust for `wss`, in place of the system's.
        control: a secret by which others may control the sessions.
    """

    url: str
    token: str | None = None
    tls: ssl.SSLContext | None = None
    control: str | None = None

    async def dial(self, side: ClientSide, patience: float = OPEN_S) -> "ClientConnection":
        """A socket on which hello was answered.

        Raises:
            Refusal: the server does not want us.
            ServiceError: it cannot be reached, or is no server of ours.
        """
        socket = await self._connect(patience)
        try:
            await socket.send(side.hello(self.token, self.control))
            await self.expect(socket, side, Welcome, patience)
        except BaseException:
            await socket.close()
            raise
        return socket

    async def _connect(self, patience: float) -> "ClientConnection":
        with needs_extra("serve", "the websocket client needs websockets"):
            from websockets.asyncio.client import connect
            from websockets.exceptions import InvalidHandshake, InvalidStatus
        address = websocket_address(self.url)
        settings: dict[str, Any] = {"ssl": self.tls} if self.tls else {}
        try:
            return await connect(
                address,
                origin=origin_of(self.url),  # type: ignore[arg-type]
                open_timeout=patience,
                close_timeout=2,
                ping_interval=BEAT_S,
                ping_timeout=BEAT_S,
                max_size=LARGEST_REPLY,
                max_queue=64,
                compression=None,
                **settings,
            )
        except InvalidStatus as error:
            reason = (error.response.body or b"")[:200].decode("utf-8", "replace").strip()
            raise ServiceError(
                f"{address} turned us away (HTTP {error.response.status_code}:"
                f" {reason or 'no reason given'})"
            ) from error
        except (OSError, TimeoutError, InvalidHandshake, EOFError) as error:
            raise ServiceError(
                f"{address} cannot be reached ({error or 'no answer'}): is `rtvc serve` running"
                " there?"
            ) from error

    async def expect(
        self, socket: "ClientConnection", side: ClientSide, expected: type[Answer], patience: float
    ) -> Answer:
        """Reads until a message of the type comes: only while nobody else reads.

        Raises:
            Refusal: an error came instead.
            ServiceError: the connection broke, or nothing came.
        """
        from websockets.exceptions import ConnectionClosed

        try:
            async with asyncio.timeout(patience):
                while True:
                    event = side.receive(await socket.recv())
                    if isinstance(event, expected):
                        return event
                    if isinstance(event, Error):
                        raise Refusal.of(event)
                    if isinstance(event, Violation):
                        raise ProtocolError(
                            f"the server does not speak this protocol ({event.error.message})"
                        )
        except ConnectionClosed as error:
            raise ServiceError(f"the server closed the connection ({error})") from error
        except TimeoutError as error:
            raise ServiceError(
                f"{self.url} was reached and does not answer: is it `rtvc serve`?"
            ) from error
