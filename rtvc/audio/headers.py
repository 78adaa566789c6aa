"""Headers of recordings that say nothing about their length, or promise more than there is.

A recorder that was killed leaves a WAV or AIFF file of length 0, and all of its sound behind it. A
copy that was cut off holds less than it says, which libsndfile passes over in silence.
"""

import io
import os
import warnings
from typing import IO, Any, Literal

from rtvc.audio.check import AudioWarning
from rtvc.files import StrPath

HEAD = 1 << 16
"""Bytes at the beginning of a file in which its chunks are looked for, and at the end of an Ogg
file in which its last page is: no page is longer."""
UNKNOWN = 0x7FFF_0000
"""Lengths of 32 bits from here on are written by programs that cannot know: sox to a pipe writes
0x7FFFF…, ffmpeg 0xFFFFFFFF."""
LARGEST = 1 << 56
"""Lengths of 64 bits and counts of samples from here on mean the same."""
SLACK = 0.99
"""Share of what is announced below which a recording is called incomplete: the length of an MP3 is
an estimate."""
THAT = "that its header announces"
LAST_PAGE = 4
"""Bit of an Ogg page that ends a stream."""


class DamagedWarning(AudioWarning):
    """A recording that is not whole."""


class Patched(io.RawIOBase):
    """A file, some bytes of which read as others; what is on the disk stays as it is.

    Args:
        source: seekable.
        at: of the first byte that differs.
        fresh: what is read there.
    """

    def __init__(self, source: IO[bytes], at: int, fresh: bytes) -> None:
        self.source, self.at, self.fresh = source, at, fresh

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """See the base."""
        return self.source.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        """See the base."""
        view, start = memoryview(buffer).cast("B"), self.source.tell()
        data = bytearray(self.source.read(len(view)))
        low = max(self.at, start)
        high = min(self.at + len(self.fresh), start + len(data))
        if low < high:
            data[low - start : high - start] = self.fresh[low - self.at : high - self.at]
        view[: len(data)] = data
        return len(data)


def repaired(source: IO[bytes], path: StrPath) -> Patched | None:
    """The same bytes with the length put right, where a WAV or AIFF file says 0; None for others.

    Warns with a `DamagedWarning` there, and where the sound is shorter than the header says.

    Args:
        source: of the recording, seekable.
        path: its name in warnings.
    """
    source.seek(0)
    head, size = source.read(HEAD), source.seek(0, os.SEEK_END)
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return _chunked(source, head, size, path, "little", b"data", 0)
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _chunked(source, head, size, path, "big", b"SSND", 8)
    if head[:4] == b"OggS":
        source.seek(max(0, size - HEAD))
        if not ends(source.read(HEAD)):
            warn_cut(path, "does not end with a whole last page")
        return None
    announced = 0
    if head[:4] == b".snd":
        length = int.from_bytes(head[8:12], "big")
        announced = int.from_bytes(head[4:8], "big") + length if length < UNKNOWN else 0
    elif head[:4] == b"RF64" and head[12:16] == b"ds64":
        announced = 8 + int.from_bytes(head[20:28], "little")
    elif head[:4] == b"riff" and head[24:28] == b"wave":
        announced = int.from_bytes(head[16:24], "little")
    if size < SLACK * announced < LARGEST:
        warn_cut(path, f"holds {size} of the {announced} bytes {THAT}")
    return None


def ends(tail: bytes) -> bool:
    """Whether the bytes at the end of an Ogg file hold its last page, whole."""
    page = tail[max(0, tail.rfind(b"OggS")) :]
    if len(page) < 27 or not page[5] & LAST_PAGE:
        return False
    segments = page[26]
    return len(page) >= 27 + segments + sum(page[27 : 27 + segments])


def _chunked(
    source: IO[bytes],
    head: bytes,
    size: int,
    path: StrPath,
    order: Literal["little", "big"],
    sound: bytes,
    before: int,
) -> Patched | None:
    """`repaired` of a file of chunks; `before` bytes of the chunk `sound` come before its
    samples."""
    at = 12
    while at + 8 <= len(head):
        length, rest = int.from_bytes(head[at + 4 : at + 8], order), size - at - 8
        if head[at : at + 4] == sound:
            if length <= before < rest:
                what = f"{path} holds 0 samples by its header, but {rest - before} bytes follow"
                warnings.warn(f"{what}: it is read to its end", DamagedWarning, stacklevel=4)
                return Patched(source, at + 4, min(rest, (1 << 32) - 1).to_bytes(4, order))
            if rest < SLACK * length and length < UNKNOWN:
                warn_cut(path, f"holds {rest} of the {length} bytes of sound {THAT}")
            return None
        at += 8 + length + length % 2
    return None


def warn_cut(path: StrPath, what: str) -> None:
    """Warns that a recording is not whole, and how that is known."""
    warnings.warn(f"{path} {what}: it may be damaged or cut off", DamagedWarning, stacklevel=4)
