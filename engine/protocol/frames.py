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
            f"a binary frame of {len(data)} bytes came, a header of {HEADER.size} bytes was wanted"
        )
    version, flags, format, sequence, timestamp = HEADER.unpack_from(data)
    if version != VERSION:
        raise ProtocolError(
            f"a binary frame of version {version} came, version {VERSION} was wanted"
        )
    if flags & ~KNOWN:
        raise ProtocolError(
            f"a binary frame with the flags {flags:#04x} came, none above {KNOWN:#04x} are known"
        )
    if timestamp >= LATEST:
        raise ProtocolError(f"the timestamp {timestamp} came, microseconds below 2^63 were wanted")
    upload = bool(flags & UPLOAD)
    if upload and (flags & (DROPPED | SILENCE) or format):
        raise ProtocolError(
            "an upload frame with a format, or flags of audio, came: format 0 was wanted"
        )
    if not upload and format not in FORMATS.values():
        raise ProtocolError(
            f"an audio frame of format {format} came, one of {sorted(FORMATS.values())} was wanted"
        )
    return Frame(flags, format, sequence, timestamp, bytes(data[HEADER.size :]))
