"""Protocol version 1: what control messages are made of, and how large anything may be."""

from enum import StrEnum
from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import Field

VERSION = 1
Rate: TypeAlias = Literal[
    8_000,
    11_025,
    12_000,
    16_000,
    22_050,
    24_000,
    32_000,
    44_100,
    48_000,
    88_200,
    96_000,
    176_400,
    192_000,
]
"""Sample rates in Hz that a stream may have: a closed list, because a resampler between odd rates
costs a hundred megabytes."""
RATES: tuple[int, ...] = get_args(Rate)
Format: TypeAlias = Literal["s16", "f32", "opus"]
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=128)]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Semitones: TypeAlias = Annotated[float, Field(ge=-24, le=24)]
Weights: TypeAlias = Annotated[
    dict[Name, Annotated[float, Field(ge=0, le=1_000)]], Field(min_length=1, max_length=8)
]
VoiceChoice: TypeAlias = Name | Weights
"""A voice by name, or several by name with their shares."""
Count: TypeAlias = Annotated[int, Field(ge=0, le=2**53)]


class Code(StrEnum):
    """Why something was refused."""

    VERSION = "version"
    UNAUTHORIZED = "unauthorized"
    MALFORMED = "malformed"
    UNKNOWN_TYPE = "unknown_type"
    UNEXPECTED = "unexpected"
    TOO_LARGE = "too_large"
    BAD_FRAME = "bad_frame"
    BAD_SEQUENCE = "bad_sequence"
    RATE_LIMITED = "rate_limited"
    UNSUPPORTED = "unsupported"
    UNKNOWN_VOICE = "unknown_voice"
    BAD_NAME = "bad_name"
    NAME_TAKEN = "name_taken"
    STORE_FULL = "store_full"
    BAD_UPLOAD = "bad_upload"
    FULL = "full"
    DRAINING = "draining"
    UNKNOWN_SESSION = "unknown_session"
    TOO_LATE = "too_late"
    SUPERSEDED = "superseded"
    IDLE = "idle"
    INTERNAL = "internal"


PATH = "/v1"
"""Of a server's websocket."""
CALL_PATH = f"{PATH}/webrtc"
"""To which the offer of a call is posted."""
LARGEST_TEXT = 16_384
"""Characters of a control message from a client."""
LARGEST_REPLY = 1 << 20
"""Characters of a control message from a server: its list of voices may be long."""
LARGEST_FRAME = 1 << 18
"""Bytes of a binary frame."""
