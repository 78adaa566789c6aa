"""What one end says to what it cannot take: violations of the protocol, and requests that are
refused."""

from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import SecretStr, TypeAdapter, ValidationError

from rtvc.engine.protocol.fields import VERSION, Code
from rtvc.engine.protocol.messages import Error, Message
from rtvc.errors import ConfigError, ServiceError

Sent = TypeVar("Sent", bound=Message)


class Refusal(ServiceError):
    """The server says no to what was asked for: its parts raise it, its connection sends `error`,
    and the client raises it again.

    Args:
        code: why, one of the protocol's codes.
        message: what is wrong.
        advice: what to do about it.
        fatal: the connection closes.

    Attributes:
        code: why.
        advice: what to do about it.
        error: the message on the wire.
    """

    def __init__(self, code: Code, message: str, advice: str = "", *, fatal: bool = False) -> None:
        self.code, self.advice = code, advice
        self.error = Error(code=code, message=message, advice=advice, fatal=fatal)
        super().__init__(
            f"the server refused ({code}): {message}" + (f": {advice}" if advice else "")
        )

    @classmethod
    def of(cls, error: Error) -> "Refusal":
        """The refusal that an error on the wire tells of."""
        return cls(error.code, error.message, error.advice, fatal=error.fatal)


@dataclass(frozen=True)
class Violation:
    """Something that is not of the protocol came.

    Attributes:
        error: what to tell the peer; if fatal, close the connection afterwards.
    """

    error: Error


def violation(code: Code, message: str, advice: str = "", *, fatal: bool = False) -> Violation:
    """A `Violation` with its error."""
    return Violation(Error(code=code, message=message, advice=advice, fatal=fatal))


def read_message(text: str, adapter: TypeAdapter[Any], largest: int) -> Any:
    """A control message, or a `Violation` that says why it is none."""
    if len(text) > largest:
        return violation(
            Code.TOO_LARGE,
            f"expected a text frame of at most {largest} characters, got {len(text)}",
            fatal=True,
        )
    try:
        return adapter.validate_json(text)
    except ValidationError as problem:
        first = problem.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:80]
        if first["type"] == "union_tag_invalid":
            return violation(
                Code.UNKNOWN_TYPE,
                "expected a message of a known type, got another",
                f"version {VERSION} knows those of docs/protocol.md",
            )
        return violation(
            Code.MALFORMED,
            f"expected a message of the protocol, got something else ({where or 'the whole'}:"
            f" {first['msg'][:120]})",
        )


def message_of(kind: type[Sent], **fields: Any) -> Sent:
    """A message of our own, of what a caller gave.

    Raises:
        ConfigError: something that cannot be sent; what is secret is not repeated.
    """
    try:
        return kind(**fields)
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        name, given = str(first["loc"][0]), first["input"]
        secret = isinstance(fields.get(name), SecretStr)
        shown = (
            f"a {name} of {len(fields[name])} characters"
            if secret
            else f"{name} = {str(repr(given))[:80]}"
        )
        raise ConfigError(
            f"{shown} came for `{kind.model_fields['type'].default}`: {first['msg']}"
        ) from None
