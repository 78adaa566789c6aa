"""What both ends of the protocol read frames with: limits, refusals, control messages, and files
that arrive in pieces."""

import hashlib
import hmac
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from pydantic import SecretStr, TypeAdapter, ValidationError

from rtvc.engine.protocol.frames import END, Frame
from rtvc.engine.protocol.messages import VERSION, Code, Error, Message, Upload
from rtvc.errors import ConfigError, ProtocolError

Sent = TypeVar("Sent", bound=Message)

LARGEST_TEXT = 16_384
"""Characters of a control message from a client."""
LARGEST_REPLY = 1 << 20
"""Characters of a control message from a server: its list of voices may be long."""
LARGEST_FRAME = 1 << 18
"""Bytes of a binary frame."""
PIECE = 1 << 16
"""Bytes of an uploaded file that the client sends a frame."""


@dataclass(frozen=True)
class Refused:
    """Something that is not of the protocol came.

    Attributes:
        error: what to tell the peer; if fatal, close the connection afterwards.
    """

    error: Error


@dataclass(frozen=True)
class Uploaded:
    """A whole file arrived and its checksum is right."""

    name: str
    data: bytes


class Phase(Enum):
    """Where a connection is."""

    GREETING = "before hello was answered"
    IDLE = "without a session"
    LIVE = "in a session"
    STOPPING = "while the session's last output is sent"
    CLOSED = "closed"


def refuse(code: Code, message: str, advice: str = "", *, fatal: bool = False) -> Refused:
    """A `Refused` with its error."""
    return Refused(Error(code=code, message=message, advice=advice, fatal=fatal))


def read_message(text: str, adapter: TypeAdapter[Any], largest: int) -> Any:
    """A control message, or a `Refused` that says why it is none."""
    if len(text) > largest:
        return refuse(
            Code.TOO_LARGE,
            f"a text frame of {len(text)} characters came, at most {largest} were wanted",
            fatal=True,
        )
    try:
        return adapter.validate_json(text)
    except ValidationError as problem:
        found = problem.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in found["loc"])[:80]
        if found["type"] == "union_tag_invalid":
            return refuse(
                Code.UNKNOWN_TYPE,
                "a message of an unknown type came",
                f"version {VERSION} knows those of docs/protocol.md",
            )
        return refuse(
            Code.MALFORMED,
            f"a message that is not of the protocol came ({where or 'the whole'}:"
            f" {found['msg'][:120]})",
        )


def made(kind: type[Sent], **fields: Any) -> Sent:
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


class Receiving:
    """A file on its way."""

    def __init__(self, upload: Upload, largest: int) -> None:
        self.upload, self.largest = upload, largest
        self.data = bytearray()
        self.wanted = 0
        self.skipped = upload.size > largest

    def take(self, frame: Frame) -> Uploaded | Refused | None:
        """One piece; the whole file when it was the last."""
        if frame.sequence != self.wanted:
            return refuse(
                Code.BAD_SEQUENCE,
                f"upload frame {frame.sequence} came, {self.wanted} was wanted",
                fatal=True,
            )
        self.wanted += 1
        if not self.skipped:
            self.data += frame.payload
            if len(self.data) > self.upload.size:
                return refuse(
                    Code.BAD_UPLOAD,
                    f"more than the {self.upload.size} bytes that were announced came",
                    fatal=True,
                )
        if not frame.flags & END or self.skipped:
            return None
        if len(self.data) != self.upload.size or not hmac.compare_digest(
            hashlib.sha256(self.data).hexdigest(), self.upload.sha256
        ):
            advice = "check size and sha256, and send the file again"
            return refuse(
                Code.BAD_UPLOAD,
                f"{len(self.data)} bytes came that are not the {self.upload.size} announced ones",
                advice,
            )
        return Uploaded(self.upload.name, bytes(self.data))


class Refusal(ProtocolError):
    """Something that was asked for is not given; the server's parts raise it and the connection
    sends its `error`."""

    def __init__(self, code: Code, message: str, advice: str = "", *, fatal: bool = False) -> None:
        super().__init__(message)
        self.error = Error(code=code, message=message, advice=advice, fatal=fatal)
