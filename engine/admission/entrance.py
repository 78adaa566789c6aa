"""Where clients arrive: every socket is counted from the moment it is accepted, before TLS, a
request or a token.

Limits above the websocket library count connections that it has made; sockets that say nothing
never get that far, and 600 of them cost a process of 256 descriptors its voices, its health check
and its log. Here the oldest socket that was not greeted yet makes room for a new one: who means it
has said hello long before.
"""

import contextlib
import errno
import os
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from rtvc.errors import ConfigError

SEND_BUFFER = 32_768
"""Bytes that the system buffers for a client (it takes twice that): what lies there can no longer
be dropped when stale."""
RECEIVE_BUFFER = 65_536
"""Bytes that the system buffers from a client: what lies there is lost with the connection, and is
sent again to resume."""
WAITING = 256
"""Sockets that the system keeps for us until they are accepted."""
AT_ONCE = 64
"""Sockets that asyncio accepts before it looks after the others again."""
RESERVED = 64
"""Descriptors that sockets never take: voices, decoders and logs need them."""
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Accepted(socket.socket):
    """A client's socket, which tells when it is closed."""

    address = ""
    since = 0.0
    closed: Callable[[], None] | None = None

    def close(self) -> None:
        """See `socket.socket.close`."""
        super().close()
        if self.closed is not None:
            closed, self.closed = self.closed, None
            closed()


class Entrance:
    """Counts the sockets of one port.

    Args:
        sockets: that may be open at once.
        handshakes: of them, that were not greeted yet.
        handshakes_per_address: of those, from one address.
        patience: seconds until a socket must have been greeted.
        shared: addresses whose sockets belong to many clients (proxies): only the totals bound
            them.
        refused: hears why a socket was closed, and its address.
        clock: seconds.
    """

    def __init__(
        self,
        sockets: int,
        handshakes: int,
        handshakes_per_address: int,
        patience: float,
        *,
        shared: frozenset[str] = frozenset(),
        refused: Callable[[str, str], None] = lambda code, address: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sockets, self.handshakes, self.per_address = (
            sockets,
            handshakes,
            handshakes_per_address,
        )
        self.patience, self.shared, self.refused, self.clock = patience, shared, refused, clock
        self.open: dict[int, Accepted] = {}  # by descriptor
        self._new: dict[int, Accepted] = {}  # those that were not greeted yet, oldest first
        self._from: Counter[str] = Counter()

    def arrived(self, new: Accepted, address: str) -> bool:
        """Counts a socket in, and closes another one if there are too many; False if it is this one
        that must go."""
        own = self._from[address] if address not in self.shared else 0
        if own >= self.per_address:
            self._evict(next(one for one in self._new.values() if one.address == address))
        elif len(self._new) >= self.handshakes or (len(self.open) >= self.sockets and self._new):
            self._evict(next(iter(self._new.values())))
        elif len(self.open) >= self.sockets:
            self.refused("sockets", address)
            return False
        number = new.fileno()
        new.address, new.since, new.closed = address, self.clock(), lambda: self._gone(number)
        self.open[number] = self._new[number] = new
        self._from[address] += 1
        return True

    def greeted(self, number: int) -> None:
        """The client behind a descriptor is known from now on."""
        new = self._new.pop(number, None)
        if new is not None:
            self._from[new.address] -= 1
            if not self._from[new.address]:
                del self._from[new.address]

    def expire(self) -> None:
        """Closes what was not greeted in time; call it now and then."""
        now = self.clock()
        for one in list(self._new.values()):
            if now - one.since <= self.patience:
                break
            self._evict(one)

    def close(self) -> None:
        """Ends every socket."""
        for one in list(self.open.values()):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _evict(self, one: Accepted) -> None:
        """Ends a socket: whoever reads it finds that it was closed, and closes it."""
        self.refused("handshakes", one.address)
        self.greeted(one.fileno())
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)

    def _gone(self, number: int) -> None:
        self.greeted(number)
        self.open.pop(number, None)


class Listener(socket.socket):
    """A listening socket for asyncio, whose `accept` keeps the entrance's rules.

    asyncio calls `accept` up to a hundred times in a row, goes on after an error for want of
    descriptors, and writes each of them to the log
    (https://github.com/python/cpython/issues/151615): BlockingIOError, which it takes for "nobody
    is there", is all that it gets to see.
    """

    entrance: Entrance
    spare: int | None = None

    def accept(self) -> tuple[socket.socket, Any]:
        """See `socket.socket.accept`.

        Raises:
            BlockingIOError: nobody is there, or whoever was has been turned away.
        """
        try:
            plain, address = super().accept()
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            self._shed()
            raise BlockingIOError(error.errno, "no descriptor is left") from None
        new = Accepted(plain.family, plain.type, plain.proto, plain.detach())
        if not self.entrance.arrived(new, str(address[0])):
            new.close()
            raise BlockingIOError(errno.EAGAIN, "too many sockets are open")
        return new, address

    def listen(self, backlog: int = WAITING, /) -> None:
        """See `socket.socket.listen`: the system keeps `WAITING`, whatever asyncio asks for to
        accept at once."""
        super().listen(WAITING)

    def _shed(self) -> None:
        """Turns one client away although there is no descriptor for it, with one that was kept for
        that."""
        self.entrance.refused("descriptors", "")
        if self.spare is not None:
            os.close(self.spare)
            self.spare = None
        with contextlib.suppress(OSError):
            super().accept()[0].close()
        self.keep_spare()

    def keep_spare(self) -> None:
        """Opens a descriptor for bad times."""
        with contextlib.suppress(OSError):
            self.spare = os.open(os.devnull, os.O_RDONLY)

    def close(self) -> None:
        """See `socket.socket.close`."""
        super().close()
        if self.spare is not None:
            os.close(self.spare)
            self.spare = None


def taken(host: str, port: int, error: OSError) -> ConfigError:
    """The error of an address that cannot be had."""
    why = f"{host}:{port} cannot be listened on ({error.strerror})"
    return ConfigError(f"{why}: is a server running there already?")


def reserve(host: str, port: int) -> Listener:
    """A socket that keeps an address, and refuses connections until it listens.

    Raises:
        ConfigError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = Listener(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise taken(host, port, error) from error
    return listener


def listen(
    host: str, port: int, entrance: Entrance | None = None, reserved: Listener | None = None
) -> Listener:
    """A listening socket whose connections buffer little; with a `reserved` one, that one.

    Raises:
        ConfigError: the address cannot be had.
    """
    listener = reserve(host, port) if reserved is None else reserved
    listener.entrance = entrance or Entrance(WAITING, WAITING, WAITING, float("inf"))
    try:
        listener.listen()
        listener.keep_spare()
    except OSError as error:
        listener.close()
        raise taken(host, port, error) from error
    return listener


def room_for(sockets: int) -> int:
    """So many sockets, or as many as the limit of open files leaves, which is raised as far as that
    is allowed.

    Raises:
        ConfigError: it leaves none.
    """
    try:
        import resource
    except ImportError:  # Windows, where sockets are no files
        return sockets
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else RESERVED
    needed = sockets + used + RESERVED
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        least = used + RESERVED + 1
        if soft < least:
            raise ConfigError(
                f"expected room for at least {least} open files, {soft} are allowed: raise"
                " `ulimit -n`"
            )
        return min(sockets, soft - used - RESERVED)
    return sockets
