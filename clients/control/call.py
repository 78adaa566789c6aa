"""Asks a running conversion over its local endpoint, with nothing but the standard library: it is
called by hot keys and must be there at once."""

import json
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

from rtvc.clients.control.runtime import Address
from rtvc.errors import ConfigError, ServiceError
from rtvc.files import parsed

PATIENCE_S = 30.0
"""Seconds that an answer may take: a device may be slow to open."""


class Line:
    """A connection to a running conversion, kept for one request after the other.

    Args:
        address: where it is.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._connection = HTTPConnection(str(urlsplit(address.url).netloc), timeout=PATIENCE_S)

    def status(self) -> dict[str, Any]:
        """How it is doing.

        Raises:
            ServiceError: it does not answer.
        """
        return self._ask("GET", "/v1/status", None)

    def change(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Carries out a `Change`; returns how it is doing afterwards.

        Raises:
            ConfigError: it was refused.
            ServiceError: it does not answer.
        """
        return self._ask("POST", "/v1/control", json.dumps(asked))

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    def _ask(self, method: str, path: str, body: str | None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.address.token}"}
        try:
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            answer = parsed(response.read().decode())
            if not isinstance(answer, dict):
                raise ValueError("expected a state")
        except (OSError, HTTPException, ValueError) as error:
            raise ServiceError(
                f"the conversion of process {self.address.pid} does not answer"
                f" ({type(error).__name__}): look whether it still runs"
            ) from error
        if response.status != 200:
            kind = ServiceError if response.status >= 500 else ConfigError
            raise kind(str(answer.get("error", response.reason)))
        return answer
