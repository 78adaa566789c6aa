"""The two directions of a session's audio, which outlive a connection: numbered, kept for
resending, checked on arrival.

Either end has one of each: the client's `Outgoing` feeds the server's `Incoming`, and the other way
round.
"""

import struct
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from rtvc.audio.samples import Samples
from rtvc.engine.protocol.fields import Format
from rtvc.engine.protocol.formats import Codec, codec
from rtvc.engine.protocol.frames import DROPPED, END, FORMATS, LAST_SEQUENCE, SILENCE, Frame
from rtvc.errors import ProtocolError

LONGEST_S = 1.0
"""Seconds of audio that one frame may hold."""
COUNT = struct.Struct("<I")


@dataclass(frozen=True)
class Audio:
    """Audio that arrived.

    Attributes:
        samples: (N,) float32 in [-1, 1]; empty at most in the last frame.
        timestamp: when the first sample was captured, in microseconds of the client's clock.
        sequence: of the frame.
        end: nothing follows.
        dropped: audio before it was dropped by the sender.
    """

    samples: Samples
    timestamp: int
    sequence: int
    end: bool
    dropped: bool


class SequenceError(ProtocolError):
    """A frame is missing."""


class Outgoing:
    """Numbers frames and keeps the latest for a peer that lost its connection.

    Args:
        format: of the payloads.
        rate: of the samples, in Hz.
        keep: seconds of sent audio that are kept.

    Attributes:
        sequence: number of the next new frame.
        limit: bytes that may be kept beyond `keep`; 0 at first.
    """

    def __init__(self, format: Format, rate: int, keep: float = 10.0) -> None:
        self.format, self.rate, self.keep = FORMATS[format], rate, round(keep * rate)
        self.codec: Codec = codec(format, rate)
        self.sequence = 0
        self.limit = 0
        self._kept: deque[tuple[int, bytes, int]] = deque()
        self._samples = self._bytes = 0

    @property
    def acknowledged(self) -> bool:
        """Whether the peer has said that it has every frame."""
        return not self._kept

    @property
    def first(self) -> int:
        """Number of the oldest frame that is still kept; `sequence` when there is none."""
        return self._kept[0][0] if self._kept else self.sequence

    def frame(
        self,
        samples: Samples,
        timestamp: int,
        *,
        end: bool = False,
        dropped: bool = False,
        silence: bool = False,
    ) -> bytes:
        """The next frame.

        Args:
            samples: (N,) float32; with Opus a duration that it knows.
            timestamp: when the first sample was captured, in microseconds of the client's clock.
            end: nothing follows.
            dropped: audio before it was dropped.
            silence: the samples are all zero and the peer understands silent frames: only their
                number is sent.

        Raises:
            ProtocolError: after 2^32 frames.
        """
        if self.sequence > LAST_SEQUENCE:
            raise ProtocolError("the session has sent 2^32 frames: start another one")
        flags = END * end | DROPPED * dropped | SILENCE * (silence or not len(samples))
        payload = COUNT.pack(len(samples)) if flags & SILENCE else self.codec.encode(samples)
        data = Frame(flags, self.format, self.sequence, max(0, timestamp), payload).to_bytes()
        self._keep(self.sequence, data, len(samples))
        self.sequence += 1
        while self._samples > self.keep and self._bytes > self.limit and len(self._kept) > 1:
            self._drop()
        return data

    def _keep(self, sequence: int, data: bytes, samples: int) -> None:
        self._kept.append((sequence, data, samples))
        self._samples += samples
        self._bytes += len(data)

    def state(self) -> dict[str, Any]:
        """Arrays and numbers to go on from: the frames that are kept, and their number."""
        sizes = [(sequence, len(data), samples) for sequence, data, samples in self._kept]
        return {
            "sequence": self.sequence,
            "sizes": np.array(sizes, np.int64).reshape(-1, 3),
            "kept": np.frombuffer(b"".join(data for _, data, _ in self._kept), np.uint8),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` returned."""
        self.sequence, at, data = state["sequence"], 0, state["kept"].tobytes()
        for sequence, size, samples in state["sizes"].tolist():
            self._keep(sequence, data[at : at + size], samples)
            at += size

    def _drop(self) -> None:
        _, data, samples = self._kept.popleft()
        self._samples -= samples
        self._bytes -= len(data)

    def forget(self, before: int) -> None:
        """The peer has every frame before number `before`."""
        while self._kept and self._kept[0][0] < before:
            self._drop()

    def again(self, start: int) -> list[bytes]:
        """The frames from number `start` on, as they were sent.

        Raises:
            SequenceError: they are no longer kept, or were never sent.
        """
        if not self.first <= start <= self.sequence:
            raise SequenceError(
                f"expected a frame from {self.first} to {self.sequence}, got a demand for {start}:"
                " start a new session"
            )
        return [data for sequence, data, _ in self._kept if sequence >= start]


class Incoming:
    """Checks and decodes the frames that arrive.

    Args:
        format: of the payloads.
        rate: of the samples, in Hz.
    """

    def __init__(self, format: Format, rate: int) -> None:
        self.format, self.rate = FORMATS[format], rate
        self.codec: Codec = codec(format, rate)
        self.expected = 0  # number of the next frame
        self.ended = False

    def restore(self, sequence: int, ended: bool) -> None:
        """Goes on with frame number `sequence`, or with none."""
        self.expected, self.ended = sequence, ended

    def accept(self, frame: Frame) -> Audio | None:
        """The audio of a frame; None for one that came before (after a resumption).

        Raises:
            SequenceError: a frame is missing, or one comes after the end.
            ProtocolError: the payload is not of the format, or holds more than a second.
        """
        if frame.format != self.format:
            raise ProtocolError(
                f"expected an audio frame of the session's format {self.format}, got one of"
                f" {frame.format}: send what `start` named"
            )
        if frame.sequence < self.expected:
            return None
        if frame.sequence > self.expected or self.ended:
            due = "none after the end" if self.ended else f"audio frame {self.expected}"
            raise SequenceError(f"expected {due}, got audio frame {frame.sequence}")
        samples = (
            self._silence(frame.payload)
            if frame.flags & SILENCE
            else self.codec.decode(frame.payload)
        )
        end = bool(frame.flags & END)
        if len(samples) > LONGEST_S * self.rate:
            raise ProtocolError(
                f"expected a frame of at most {LONGEST_S * self.rate:.0f} samples, got"
                f" {len(samples)}: send smaller ones"
            )
        self.expected += 1
        self.ended = end
        return Audio(samples, frame.timestamp, frame.sequence, end, bool(frame.flags & DROPPED))

    def _silence(self, payload: bytes) -> Samples:
        if len(payload) != COUNT.size:
            raise ProtocolError(
                f"expected a silent frame with a number of {COUNT.size} bytes, got {len(payload)}"
                " bytes"
            )
        count = COUNT.unpack(payload)[0]
        if count > LONGEST_S * self.rate:
            raise ProtocolError(
                f"expected a silent frame of at most {LONGEST_S * self.rate:.0f} samples, got"
                f" {count}"
            )
        return np.zeros(count, np.float32)
