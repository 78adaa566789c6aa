"""What a server refused."""

from rtvc.engine.protocol.messages import Code, Error
from rtvc.errors import ServiceError


class Refusal(ServiceError):
    """The server said no.

    Attributes:
        code: why, one of the protocol's codes.
        advice: what to do about it.
    """

    def __init__(self, error: Error) -> None:
        self.code, self.advice = error.code, error.advice
        super().__init__(
            f"the server refused ({error.code}): {error.message}"
            + (f": {error.advice}" if error.advice else "")
        )


TEMPORARY = frozenset({Code.FULL, Code.DRAINING, Code.RATE_LIMITED, Code.INTERNAL})
"""Refusals after which another attempt to resume may succeed, here or on another machine."""
