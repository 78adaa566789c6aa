"""Protocol version 1, the binary frames: a header of 16 bytes, little-endian, then audio or a piece
of an uploaded file.

u8 version | u8 flags | u16 format | u32 sequence | u64 timestamp | payload
"""

import struct
from dataclasses import dataclass
from enum import IntFlag

from rtvc.engine.protocol.fields import VERSION
from rtvc.errors import ProtocolError

HEADER = struct.Struct("<BBHIQ")
FORMATS = {"s16": 1, "f32": 2, "opus": 3}
"""The header's `format` of audio; uploads have 0."""
LAST_SEQUENCE = 2**32 - 1
LATEST = 2**63
"""Timestamps end here, so that clients that keep them in signed numbers stay right."""


class Flag(IntFlag):
    """Bits of the header's `flags`; the others are 0.

    Attributes:
        UPLOAD: a piece of the announced file; otherwise audio.
        END: the last frame of the file or of the output.
        DROPPED: audio before this frame was dropped by the sender.
        SILENCE: the payload is a u32, the number of silent samples.
    """

    UPLOAD = 1
    END = 2
    DROPPED = 4
    SILENCE = 8


UPLOAD, END, DROPPED, SILENCE = (int(flag) for flag in Flag)
"""The same as plain numbers: hundreds of sessions test them thousands of times a second, where each
enumeration would cost 1 µs."""
KNOWN = UPLOAD | END | DROPPED | SILENCE


@dataclass(frozen=True)
class Frame:
    """A binary frame.

    Attributes:
        flags: bits of `Flag`.
        format: of the audio, a value of `FORMATS`; 0 for an upload.
        sequence: counts the sender's frames of this stream or file from 0, without a gap.
        timestamp: when the first sample was captured, in microseconds of the client's clock; 0 for
            an upload.
        payload: the bytes behind the header.
    """

    flags: int
    format: int
    sequence: int
    timestamp: int
    payload: bytes

    def to_bytes(self) -> bytes:
        """The frame as it is sent."""
        return (
            HEADER.pack(VERSION, self.flags, self.format, self.sequence, self.timestamp)
            + self.payload
        )


def parse(data: bytes) -> Frame:
    """The frame in some bytes.

    Raises:
        ProtocolError: too short, of another version, with unknown flags, or a header that
            contradicts itself.
    """
    if len(data) < HEADER.size:
        raise ProtocolError(
            f"expected a header of {HEADER.size} bytes, got a binary frame of {len(data)} bytes"
        )
    version, flags, format, sequence, timestamp = HEADER.unpack_from(data)
    if version != VERSION:
        raise ProtocolError(f"expected a binary frame of version {VERSION}, got version {version}")
    if flags & ~KNOWN:
        raise ProtocolError(
            f"expected flags up to {KNOWN:#04x}, got a binary frame with {flags:#04x}"
        )
    if timestamp >= LATEST:
        raise ProtocolError(f"expected microseconds below 2^63, got the timestamp {timestamp}")
    upload = bool(flags & UPLOAD)
    if upload and (flags & (DROPPED | SILENCE) or format):
        raise ProtocolError(
            "expected an upload frame of format 0, got a format, or flags, of audio"
        )
    if not upload and format not in FORMATS.values():
        raise ProtocolError(
            f"expected an audio frame of a format of {sorted(FORMATS.values())}, got {format}"
        )
    return Frame(flags, format, sequence, timestamp, bytes(data[HEADER.size :]))
