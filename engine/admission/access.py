"""Who may connect: the Origin header, the token, and where a server may listen without one."""

import hmac
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from rtvc.errors import ConfigError

SHORTEST_TOKEN = 16
"""Characters of a token; `openssl rand -hex 32` makes 64."""


def read_token(path: Path) -> SecretStr:
    """The token in a file, without the space around it.

    Raises:
        ConfigError: no such file, or what it holds is no token.
    """
    try:
        token = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the token file {path} cannot be read ({type(error).__name__}): make one with `openssl"
            f" rand -hex 32 > {path}`"
        ) from error
    if not SHORTEST_TOKEN <= len(token) <= 256 or not token.isprintable() or " " in token:
        raise ConfigError(
            f"expected one word of {SHORTEST_TOKEN} to 256 characters, the token file {path} holds"
            f" {len(token)} characters: `openssl rand -hex 32 > {path}`"
        )
    return SecretStr(token)


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine reach a server that listens there."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def check_binding(host: str, token: SecretStr | None, insecure: bool) -> None:
    """Refuses to be open to a network by accident.

    Raises:
        ConfigError: a host other than loopback without a token, unless `insecure`.
    """
    if token is None and not insecure and not is_loopback(host):
        raise ConfigError(
            f"{host} is reached from other machines and no token was given: name one with"
            " --token-file, listen on 127.0.0.1, or pass --insecure to let everybody in"
        )


def normal(origin: str) -> str:
    """An origin in lower case, without its scheme's own port.

    Raises:
        ConfigError: it is none.
    """
    refused = (
        f"expected SCHEME://HOST[:PORT] as an origin, got {origin!r}: write it as in"
        " https://voice.example.org"
    )
    try:
        parts = urlsplit(origin.strip().lower())
        port = parts.port
    except ValueError as error:  # of either: a bracket alone, a port that is no number
        raise ConfigError(refused) from error
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    whole = parts.netloc in (
        host,
        f"{host}:{port}",
    )  # nothing beside host and port: no user, no rest behind a bracket
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or not whole
        or parts.path.strip("/")
        or parts.query
    ):
        raise ConfigError(refused)
    default = {"http": 80, "https": 443}[parts.scheme]
    return (
        f"{parts.scheme}://{host}" if port in (None, default) else f"{parts.scheme}://{host}:{port}"
    )


class Access:
    """Decides about origins and tokens.

    A page's own origin is right if it names a loopback address, the host that the server listens
    on, or a numeric address that the request itself went to. A host *name* must be listed: with
    names, an attacker's page can make itself the same origin (DNS rebinding).

    Args:
        token: that clients must send; None lets everybody in.
        origins: allowed ones besides the server's own.
        host: that the server listens on.
        missing: whether a request without an Origin is let through (only ever together with a
            token).
    """

    def __init__(
        self,
        token: SecretStr | None = None,
        origins: Sequence[str] = (),
        host: str = "127.0.0.1",
        missing: bool = False,
    ) -> None:
        if missing and token is None:
            raise ConfigError(
                "--allow-no-origin came without a token: pass --token-file as well, so that not"
                " every program gets in"
            )
        self.token, self.missing = token, missing
        self.origins = {normal(origin) for origin in origins}
        self.hosts = {
            "localhost",
            "127.0.0.1",
            "[::1]",
            f"[{host}]" if ":" in host else host.lower(),
        }

    def origin_is_right(self, origin: str | None, host: str | None) -> bool:
        """Whether the headers Origin and Host let a request through."""
        if origin is None:
            return self.missing
        try:
            given = normal(origin)
            authority = given.partition("//")[2]
            here = normal(f"{given.partition('//')[0]}//{host}").partition("//")[2]
        except ConfigError:
            return False
        if given in self.origins:
            return True
        name = authority if authority.endswith("]") else authority.rpartition(":")[0] or authority
        return authority == here and (name in self.hosts or self._numeric(name))

    def token_is_right(self, given: SecretStr | None) -> bool:
        """Compares in constant time."""
        if self.token is None:
            return True
        sent = b"" if given is None else given.get_secret_value().encode("utf-8", "replace")
        return hmac.compare_digest(sent, self.token.get_secret_value().encode())

    def _numeric(self, name: str) -> bool:
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True
