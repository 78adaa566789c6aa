"""The websocket below the library's messages: what it answers by itself is bounded, and who floods
is cut off.

`websockets` answers every ping at once, without waiting for a peer that does not read, and counts
no control frames: both happen below `recv` and `send`, where limits of messages do not bind.
`create_connection` of `websockets.asyncio.server.serve` is its documented way in. RFC 6455, section
5.5.3, allows fewer pongs than pings; nobody honest sends more than these.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from rtvc.engine.admission.limits import Bucket

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection

CONTROL_PER_S = 5.0
"""Control frames a second of one connection (pings, pongs, tiny fragments), above which it is cut
off."""
CONTROL_BURST = 60.0
"""Control frames at once."""
SLICE = 4_096
"""Bytes that are parsed between two looks at the count: some 700 of the smallest frames."""
LONGEST_METHOD = 8
"""Bytes of a request by which it is told whose it is."""
SMALL = 1_024
"""Bytes of a message's fragment below which it counts like a control frame: larger ones are bounded
by the message's size."""


class Reader(Protocol):
    """Who reads a request in place of the library."""

    def feed(self, data: bytes) -> None:
        """More of it came."""
        ...


def guarded(
    flooded: Callable[["ServerConnection"], None],
    reader: Callable[["ServerConnection", bytes], Reader | None] = lambda connection, data: None,
) -> "type[ServerConnection]":
    """A kind of connection that is cut off when control frames flood in.

    Args:
        flooded: is told.
        reader: from the first bytes of a connection, who reads it; None for the library.
    """
    from websockets.asyncio.server import ServerConnection
    from websockets.frames import BINARY, CONT, TEXT

    class Guarded(ServerConnection):
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **settings)
            self._control = Bucket(CONTROL_PER_S, CONTROL_BURST)
            self._cut = self._begun = False
            self._reader: Reader | None = None

        def data_received(self, data: bytes) -> None:
            if not self._begun:
                self._begun, self._reader = True, reader(self, data[:LONGEST_METHOD])
            if self._reader is not None:
                self._reader.feed(data)
                return
            for at in range(0, len(data), SLICE):
                if self._cut:
                    return
                super().data_received(data[at : at + SLICE])

        def process_event(self, event: Any) -> None:
            opcode = getattr(event, "opcode", None)  # the first event is the request
            harmless = opcode in (None, TEXT, BINARY) or (
                opcode is CONT and len(event.data) >= SMALL
            )
            if not harmless and not self._cut and not self._control.take():
                self._cut = True
                flooded(self)
                self.transport.abort()  # no farewell: what is unsent may never be read
            super().process_event(event)

    return Guarded
