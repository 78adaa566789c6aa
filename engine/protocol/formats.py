"""Audio on the wire: samples to payload and back, mono, for every format of the protocol."""

from functools import cache
from typing import Any, Protocol

import numpy as np

from rtvc.audio.samples import Samples
from rtvc.engine.protocol.fields import Format
from rtvc.errors import DependencyError, ProtocolError

OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
"""Sample rates in Hz that Opus knows (RFC 6716, section 2)."""
OPUS_MS = (2.5, 5, 10, 20, 40, 60)
"""Durations in milliseconds that an Opus packet may have."""
OPUS_BLOCK_S = 0.020
"""Duration of the packets that we make, in seconds."""
OPUS_PACKET = 4_000
"""Bytes of the largest packet that is taken."""


class Codec(Protocol):
    """One direction of one stream.

    Attributes:
        block: samples that `encode` takes at a time; 0 if any number will do.
    """

    block: int

    def encode(self, samples: Samples) -> bytes:
        """samples (N,) in [-1, 1] -> payload."""
        ...

    def decode(self, payload: bytes) -> Samples:
        """Payload -> (N,) in [-1, 1].

        Raises:
            ProtocolError: it holds no audio of this format.
        """
        ...


class S16:
    """16-bit integers, little-endian."""

    block = 0

    def encode(self, samples: Samples) -> bytes:
        """See `Codec.encode`."""
        return np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes()

    def decode(self, payload: bytes) -> Samples:
        """See `Codec.decode`."""
        if len(payload) % 2 or not payload:
            raise ProtocolError(
                f"expected an s16 payload of a multiple of 2 bytes, got {len(payload)} bytes"
            )
        return np.frombuffer(payload, "<i2").astype(np.float32) / np.float32(32768)


class F32:
    """32-bit floats, little-endian; what lies outside [-1, 1] is limited, what is not finite is
    refused."""

    block = 0

    def encode(self, samples: Samples) -> bytes:
        """See `Codec.encode`."""
        return np.asarray(samples, "<f4").tobytes()

    def decode(self, payload: bytes) -> Samples:
        """See `Codec.decode`."""
        if len(payload) % 4 or not payload:
            raise ProtocolError(
                f"expected an f32 payload of a multiple of 4 bytes, got {len(payload)} bytes"
            )
        samples = np.frombuffer(payload, "<f4")
        if not np.isfinite(samples).all():
            raise ProtocolError(
                "an f32 payload with infinite or undefined samples came: find where the capture"
                " went wrong"
            )
        return np.clip(samples, -1, 1).astype(np.float32)


class Opus:
    """Opus packets by libopus (PyPI `opuslib`), one a frame.

    Args:
        rate: of the samples, in Hz.
    """

    def __init__(self, rate: int) -> None:
        library = opus_library()
        if library is None:
            raise DependencyError(
                "Opus needs libopus and opuslib: install the package libopus0 and pip install"
                " 'rtvc-engine[opus]'"
            )
        if rate not in OPUS_RATES:
            raise ProtocolError(
                f"expected one of {', '.join(map(str, OPUS_RATES))} Hz for Opus, got {rate} Hz"
            )
        self.rate, self.block = rate, round(OPUS_BLOCK_S * rate)
        self._error = library.OpusError
        self._encoder, self._decoder = library.Encoder(rate, 1, "voip"), library.Decoder(rate, 1)

    def encode(self, samples: Samples) -> bytes:
        """See `Codec.encode`; N is a duration of `OPUS_MS`."""
        if 1000 * len(samples) / self.rate not in OPUS_MS:
            raise ProtocolError(
                f"expected an Opus packet of one of {OPUS_MS} ms, got {len(samples)} samples at"
                f" {self.rate} Hz"
            )
        return bytes(
            self._encoder.encode_float(np.asarray(samples, np.float32).tobytes(), len(samples))
        )

    def decode(self, payload: bytes) -> Samples:
        """See `Codec.decode`."""
        if not 1 <= len(payload) <= OPUS_PACKET:
            raise ProtocolError(
                f"expected an Opus packet of 1 to {OPUS_PACKET} bytes, got {len(payload)}"
            )
        try:
            data = self._decoder.decode_float(payload, round(0.12 * self.rate))
        except self._error as error:
            raise ProtocolError(
                f"expected an Opus packet, got one that cannot be decoded ({error}): send one whole"
                " packet a frame"
            ) from error
        return np.clip(np.nan_to_num(np.frombuffer(data, np.float32)), -1, 1).astype(np.float32)


@cache
def opus_library() -> Any | None:
    """The module `opuslib`, or None where it or libopus is missing."""
    try:
        import opuslib
    except Exception:  # a bare Exception is what opuslib raises when it finds no libopus
        return None
    return opuslib


def offered() -> tuple[Format, ...]:
    """The formats that this machine can speak."""
    return ("s16", "f32") if opus_library() is None else ("s16", "f32", "opus")


def codec(format: Format, rate: int) -> Codec:
    """One direction of a stream.

    Args:
        format: of the payloads.
        rate: of the samples, in Hz.

    Raises:
        ProtocolError: Opus at a rate that it does not know.
        DependencyError: Opus without its library.
    """
    return Opus(rate) if format == "opus" else S16() if format == "s16" else F32()
