"""What carries the frames of a connection: a websocket, or whatever a test has."""

from typing import Protocol


class Gone(Exception):
    """The client closed the connection, or it broke.

    Attributes:
        well: the client said goodbye, so it has everything that it wanted.
    """

    def __init__(self, *, well: bool = False) -> None:
        super().__init__()
        self.well = well


class Transport(Protocol):
    """What carries the frames.

    Attributes:
        address: of the client, for the log.
    """

    address: str

    async def receive(self) -> str | bytes:
        """The next frame.

        Raises:
            Gone: there will be none.
        """
        ...

    async def send(self, data: str | bytes) -> None:
        """Sends a frame; waits while the client is slow.

        Raises:
            Gone: it cannot be sent.
        """
        ...

    def greeted(self) -> None:
        """Called once, when the client is known."""
        ...

    async def close(self, code: int, reason: str) -> None:
        """Ends the connection, and does not wait long for a client that does not listen."""
        ...
