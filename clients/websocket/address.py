"""Where a server is: its address as people write it, and what is derived from it."""

from urllib.parse import urlsplit, urlunsplit

from rtvc.errors import ServiceError

PATH = "/v1"
SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}


def websocket_address(url: str) -> str:
    """The address of the websocket: `ws://host:port`, `https://host` and the like are completed.

    Raises:
        ServiceError: no address of a server, or one with a secret in it.
    """
    wanted = "one like ws://127.0.0.1:8765 was wanted"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:  # the text may hold a secret: it is not repeated
        raise ServiceError(f"an address that cannot be read came ({str(error)[:80]}), {wanted}") from error
    if parts.scheme not in SCHEMES or not parts.hostname:
        shown = f"the address {parts.scheme}://{parts.hostname}" if parts.hostname else "an address without ws:// or a host"
        raise ServiceError(f"{shown} came, {wanted}")
    if parts.username or parts.password or parts.query:
        raise ServiceError("an address with a password or a query came, only scheme, host, port and path were wanted: give the token apart")
    path = parts.path if parts.path.strip("/") else PATH
    return urlunsplit((SCHEMES[parts.scheme], parts.netloc, path, "", ""))


def origin_of(url: str) -> str:
    """The server's own origin, which programs send in place of a page's."""
    parts = urlsplit(url)
    return f"{'https' if SCHEMES[parts.scheme] == 'wss' else 'http'}://{parts.netloc}"
