"""Where a server is: its address as people write it, and what is derived from it."""

from urllib.parse import urlsplit, urlunsplit

from rtvc.engine.protocol.fields import PATH
from rtvc.errors import ServiceError

SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}


def websocket_address(url: str) -> str:
    """The address of the websocket: `ws://host:port`, `https://host` and the like are completed.

    Raises:
        ServiceError: no address of a server, or one with a secret in it.
    """
    expected = "expected an address like ws://127.0.0.1:8765"
    try:
        parts = urlsplit(url)
        host = parts.hostname, parts.port  # a port that is no number is noticed here
    except ValueError as error:  # the text may hold a secret: it is not repeated
        raise ServiceError(
            f"{expected}, got one that cannot be read ({str(error)[:80]})"
        ) from error
    if parts.scheme not in SCHEMES or not host[0]:
        raise ServiceError(f"{expected}, got {without_secrets(url)!r}")
    if parts.username or parts.password or parts.query:
        raise ServiceError(
            "expected scheme, host, port and path, got an address with a password or a query: give"
            " the token apart"
        )
    path = parts.path if parts.path.strip("/") else PATH
    return urlunsplit((SCHEMES[parts.scheme], parts.netloc, path, "", ""))


def without_secrets(url: str) -> str:
    """What was typed as an address, without what may be a user, a password or a query."""
    return url.rpartition("@")[2].partition("?")[0][:200]


def origin_of(url: str) -> str:
    """The server's own origin, which programs send in place of a page's."""
    parts = urlsplit(url)
    return f"{'https' if SCHEMES[parts.scheme] == 'wss' else 'http'}://{parts.netloc}"
