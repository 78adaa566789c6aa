"""Opus for networks that lose packets: each packet carries a coarse copy of the one before, and
what never comes is guessed from what came."""

from typing import Any

import numpy as np

from rtvc.audio.samples import Samples
from rtvc.engine.protocol.formats import OPUS_PACKET, opus_library
from rtvc.engine.webrtc.jitter import BLOCK, RATE, Packet
from rtvc.errors import DependencyError

LOSSES = 10
"""Per cent of lost packets that the encoder prepares for: from there on the copy is worth its
bits."""
BITS = 48_000
"""Bits a second, copies included: with fewer the copies are coarser."""
LONGEST = RATE // 1000 * 120
"""Samples that one packet may hold."""


def library() -> Any:
    """The module `opuslib`.

    Raises:
        DependencyError: it, or libopus, is missing.
    """
    opus = opus_library()
    if opus is None:
        raise DependencyError(
            "WebRTC needs libopus and opuslib: install the package libopus0 and pip install"
            " 'rtvc-engine[webrtc]'"
        )
    return opus


class Encoder:
    """One direction of one call, to packets of 20 ms."""

    def __init__(self) -> None:
        opus = library()
        self._encoder = opus.Encoder(RATE, 1, "voip")
        self._encoder.bitrate = BITS
        # Not by opuslib's properties: two of these do not pass the value on.
        ctl, state = opus.api.ctl, self._encoder.encoder_state
        for change, value in ((ctl.set_inband_fec, 1), (ctl.set_packet_loss_perc, LOSSES)):
            opus.api.encoder.encoder_ctl(state, change, value)

    def encode(self, samples: Samples) -> bytes:
        """samples (960,) in [-1, 1] at 48 kHz -> a packet."""
        return bytes(self._encoder.encode_float(samples.astype("<f4").tobytes(), BLOCK))


class Decoder:
    """One direction of one call, from packets of any duration.

    Attributes:
        recovered: lost packets whose copy was in the next one.
        concealed: lost packets that were guessed, and packets that were none.
    """

    def __init__(self) -> None:
        opus = library()
        self._decoder = opus.Decoder(RATE, 1)
        # Past opuslib's own function, which makes a list of Python's floats of every packet.
        self._decode = opus.api.decoder.libopus_decode_float
        self._pointer = opus.api.c_float_pointer
        self.recovered = self.concealed = 0

    def decode(self, packet: Packet) -> Samples:
        """(N,) float32 in [-1, 1] at 48 kHz; of a packet that never came 20 ms."""
        if packet.payload is None and packet.following:
            samples = self._try(packet.following, BLOCK, fec=True)
            if samples is not None:
                self.recovered += 1
                return samples
        elif packet.payload and len(packet.payload) <= OPUS_PACKET:
            samples = self._try(packet.payload, LONGEST)
            if samples is not None:
                return samples
        self.concealed += 1
        guessed = self._try(b"", BLOCK)
        return np.zeros(BLOCK, np.float32) if guessed is None else guessed

    def _try(self, payload: bytes, most: int, *, fec: bool = False) -> Samples | None:
        """What the library makes of a payload; of an empty one a guess."""
        samples = np.empty(most, np.float32)
        into = samples.ctypes.data_as(self._pointer)
        state = self._decoder.decoder_state
        count = self._decode(state, payload or None, len(payload), into, most, int(fec))
        if count < 0:
            return None
        return np.clip(np.nan_to_num(samples[:count], copy=False), -1, 1)
