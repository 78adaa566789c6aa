"""Recordings of phones and browsers, decoded by FFmpeg through PyAV: M4A, MP4, 3GP, AAC, WebM,
Matroska and WMA.

FFmpeg opens hundreds of formats, playlists that name other files among them. Whatever a file is
called, it is given to the one demuxer that its first bytes ask for, and to none if that is not in
the table here.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from types import TracebackType
from typing import IO, TYPE_CHECKING, NamedTuple, Self

import numpy as np

from rtvc.audio.samples import Samples
from rtvc.errors import AudioError, DependencyError

if TYPE_CHECKING:
    from av import AudioFrame


HEAD = 1 << 16
"""Bytes at the beginning of a file that tell its container: tags before AAC may be that long."""
TOP = 1 << 23
"""Hz above which a header lies."""


class Container(NamedTuple):
    """A kind of file.

    Attributes:
        name: as people call it.
        demuxer: FFmpeg's name.
        counted: whether its header knows the length.
    """

    name: str
    demuxer: str
    counted: bool = True


MP4 = Container("M4A or MP4", "mov")
MATROSKA = Container("WebM or Matroska", "matroska")
ASF = Container("WMA", "asf")
AAC = Container("AAC", "aac", counted=False)
BOXES = (b"ftyp", b"moov", b"mdat", b"wide")
"""What an MP4 file begins with, behind four bytes of length."""


ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
"""What the file properties of WMA begin with."""
ASF_LIVE = 1
"""Their flag of a file that was never closed, whose lengths mean nothing."""


class MissingDecoderError(AudioError, DependencyError):
    """A recording that needs PyAV, which is not installed."""


def container_of(head: bytes) -> Container | None:
    """The container of a file by its first bytes, `HEAD` of them; None for one that is not of this
    module."""
    if head[4:8] in BOXES:
        return MP4
    if head[:4] == b"\x1aE\xdf\xa3":
        return MATROSKA
    if head[:16] == bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"):
        return ASF
    at = 0
    if head[:3] == b"ID3" and len(head) > 10:
        at = 10 + sum((byte & 127) << 7 * (3 - place) for place, byte in enumerate(head[6:10]))
    sync = head[at : at + 2]
    return AAC if len(sync) == 2 and sync[0] == 0xFF and sync[1] & 0xF6 == 0xF0 else None


def asf_seconds(head: bytes) -> float:
    """The length that a WMA file's header gives, 0 where it gives none: its file properties hold
    the time to play in 100 ns, and within it milliseconds of preroll (ASF specification 01.20.06,
    section 3.2)."""
    at = head.find(ASF_PROPERTIES)
    if at < 0 or len(head) < at + 92:
        return 0.0
    played, _, preroll, flags = struct.unpack_from("<QQQI", head, at + 64)
    return 0.0 if flags & ASF_LIVE else max(0.0, played / 1e7 - preroll / 1e3)


class ReadOnly:
    """A file as PyAV may have it: what could also be written it would take for a target, and what
    it can close it closes."""

    def __init__(self, source: IO[bytes]) -> None:
        self.read, self.seek, self.tell = source.read, source.seek, source.tell


class Contained:
    """A recording in a container; it is read like a `soundfile.SoundFile`.

    Args:
        source: its bytes, seekable; they stay open.
        container: by `container_of`.
        name: in errors.

    Attributes:
        samplerate: in Hz.
        channels: their number.
        frames: samples a channel as the header says, 0 where it does not; it may be wrong.

    Raises:
        MissingDecoderError: PyAV is not installed.
        ValueError: it cannot be decoded.
    """

    def __init__(self, source: IO[bytes], container: Container, name: str) -> None:
        try:
            import av  # noqa: F401
        except ImportError as error:
            raise MissingDecoderError(
                f"{name} is {container.name}, which is read through PyAV: pip install"
                " 'rtvc-engine[formats]', or convert it to WAV or FLAC"
            ) from error
        self._source, self._container = source, container
        self._rest: Samples = np.zeros((0, 1), np.float32)
        self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def read(self, frames: int, dtype: str = "float32", always_2d: bool = True) -> Samples:
        """The next samples, (N, C) float32 in -1..1, N at most `frames`; none at the end.

        Raises:
            ValueError: what is there cannot be decoded.
        """
        parts, missing = list[Samples](), frames
        while missing:
            if not len(self._rest):
                with _complaints():
                    self._rest = next(self._decoded, self._rest)
                if not len(self._rest):
                    break
            parts.append(self._rest[:missing])
            self._rest = self._rest[missing:]
            missing -= len(parts[-1])
        return np.concatenate(parts) if parts else self._rest

    def seek(self, frames: int) -> int:
        """Back to the beginning, the one place it can go to."""
        if frames:
            raise ValueError(f"sample {frames} was asked for, only the beginning can be gone to")
        self._file.close()
        self._open()
        return 0

    def _open(self) -> None:
        import av

        self._source.seek(0)
        with _complaints():
            self._file = av.open(
                ReadOnly(self._source),
                "r",
                format=self._container.demuxer,
                metadata_errors="replace",
            )
            sound = self._file.streams.audio
            if not sound or sound[0].codec_context is None:
                raise ValueError("it holds no sound that FFmpeg knows")
            self._stream = sound[0]
            context = self._stream.codec_context
            self.samplerate, self.channels = context.sample_rate, context.layout.nb_channels
            self._decoded = self._arrays()
            self._rest = np.zeros((0, self.channels), np.float32)
            # The first frame knows better than the header: AAC may double its rate within.
            self._rest = next(self._decoded, self._rest)
        if not 0 < self.samplerate < TOP or not self.channels:
            raise ValueError(f"it has {self.channels} channels at {self.samplerate} Hz")
        seconds = 0.0
        if self._container.counted and self._stream.duration and self._stream.time_base:
            seconds = float(self._stream.duration * self._stream.time_base)
        elif self._container.counted and self._file.duration:
            seconds = self._file.duration / av.time_base
        if self._container is ASF:  # FFmpeg shortens what it says to the bytes that are there
            at = self._source.tell()
            self._source.seek(0)
            seconds = asf_seconds(self._source.read(HEAD))
            self._source.seek(at)
        self.frames = max(0, int(seconds * self.samplerate))

    def _arrays(self) -> Iterator[Samples]:
        """The decoded frames, (N, C) each, the last one as long as its packet says."""
        import av

        held: AudioFrame | None = None
        broken: av.FFmpegError | None = None
        for packet in self._file.demux(self._stream):
            if broken is not None and packet.size:
                raise broken  # the last packet alone may be cut off
            try:
                frames = packet.decode()
            except av.error.InvalidDataError as error:
                broken, frames = error, []
            for frame in frames:
                if held is None:
                    self.samplerate, self.channels = frame.sample_rate, frame.layout.nb_channels
                else:
                    yield self._samples(held)
                held = frame
        if held is not None:
            yield self._samples(held)[: lasting(held)]

    def _samples(self, frame: "AudioFrame") -> Samples:
        if (frame.sample_rate, frame.layout.nb_channels) != (self.samplerate, self.channels):
            raise ValueError("its sample rate or number of channels changes in the middle")
        planes = frame.to_ndarray()
        planes = planes.T if frame.format.is_planar else planes.reshape(-1, self.channels)
        if planes.dtype.kind == "f":
            return np.ascontiguousarray(planes, np.float32)
        size = 8 * planes.dtype.itemsize - 1
        middle = 1 << size if planes.dtype.kind == "u" else 0
        return np.asarray((planes.astype(np.float64) - middle) / (1 << size), np.float32)


def lasting(frame: "AudioFrame") -> int:
    """Samples of a last frame that are sound: codecs fill it up, and the packet knows how far."""
    tick = frame.time_base
    if not frame.duration or not tick or tick > Fraction(1, frame.sample_rate):
        return frame.samples
    return min(frame.samples, round(frame.duration * tick * frame.sample_rate))


@contextmanager
def _complaints() -> Iterator[None]:
    """FFmpeg's complaints as a `ValueError`."""
    import av

    try:
        yield
    except av.FFmpegError as error:
        raise ValueError(error.strerror or type(error).__name__) from error
