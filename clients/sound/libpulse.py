"""PulseAudio's own client library, by which a program talks to PulseAudio and PipeWire without
ALSA between them: every buffer has the size that is asked for.

Its simple interface is enough (`pulse/simple.h`): a connection has one stream, `read` and `write`
wait. Whoever uses it has a thread for each.
"""

import ctypes
import ctypes.util
import sys
from functools import cache
from typing import Any

from rtvc.audio.samples import Samples
from rtvc.errors import DependencyError, DeviceError

FLOAT32 = 5 if sys.byteorder == "little" else 6
PLAYBACK, RECORD = 1, 2
ANY = 0xFFFFFFFF
"""Lets the server choose."""
BYTES = 4
"""Of a sample."""


class SampleSpec(ctypes.Structure):
    """`pa_sample_spec`."""

    _fields_ = [("format", ctypes.c_int), ("rate", ctypes.c_uint32), ("channels", ctypes.c_uint8)]


class BufferAttributes(ctypes.Structure):
    """`pa_buffer_attr`: sizes in bytes."""

    _fields_ = [
        (name, ctypes.c_uint32) for name in ("maxlength", "tlength", "prebuf", "minreq", "fragsize")
    ]


@cache
def libraries() -> tuple[Any, Any]:
    """libpulse-simple and libpulse.

    Raises:
        DependencyError: they are not installed.
    """
    try:
        simple, pulse = (ctypes.CDLL(f"lib{name}.so.0") for name in ("pulse-simple", "pulse"))
    except OSError as error:
        raise DependencyError(
            f"the sound server's library is missing ({error}): apt-get install libpulse0"
        ) from error
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    simple.pa_simple_new.restype = pointer
    simple.pa_simple_new.argtypes = [text, text, ctypes.c_int, text, text, *[pointer] * 4]
    simple.pa_simple_free.restype, simple.pa_simple_free.argtypes = None, [pointer]
    for name in ("pa_simple_read", "pa_simple_write"):
        getattr(simple, name).argtypes = [pointer, pointer, ctypes.c_size_t, pointer]
    simple.pa_simple_get_latency.restype = ctypes.c_uint64
    simple.pa_simple_get_latency.argtypes = [pointer, pointer]
    pulse.pa_strerror.restype, pulse.pa_strerror.argtypes = text, [ctypes.c_int]
    return simple, pulse


class Connection:
    """One stream of mono float32 to or from a sound server.

    Args:
        device: the server's name of it; empty takes the default, which `PULSE_SOURCE` and
            `PULSE_SINK` may name.
        rate: of the samples, in Hz.
        block: samples that the server is to hand over at a time when it records.
        buffered: samples that are to wait at the server when it plays, its device included.
        asked: samples that it asks for at a time when it plays; half of what `buffered` is more
            than two of them is what its device gets.
        incoming: from a microphone rather than to a loudspeaker.

    Raises:
        DependencyError: the library is not installed.
        DeviceError: there is no server, or no such device.
    """

    def __init__(
        self, device: str, *, rate: int, block: int, buffered: int, asked: int, incoming: bool
    ) -> None:
        self.simple, self.pulse = libraries()
        self.incoming, self.error = incoming, ctypes.c_int(0)
        spec = SampleSpec(FLOAT32, rate, 1)
        waiting = BYTES * buffered
        sizes = BufferAttributes(ANY, waiting, waiting, BYTES * asked, BYTES * block)
        self.handle = self.simple.pa_simple_new(
            None,
            b"rtvc",
            RECORD if incoming else PLAYBACK,
            device.encode() or None,
            b"microphone" if incoming else b"loudspeaker",
            ctypes.byref(spec),
            None,
            ctypes.byref(sizes),
            ctypes.byref(self.error),
        )
        if not self.handle:
            raise DeviceError(
                f"expected a sound server with the device {device or 'that is the default'!r}, got"
                f" {self.problem!r}: see `rtvc devices`"
            )

    @property
    def problem(self) -> str:
        """What the server said last."""
        return str(self.pulse.pa_strerror(self.error.value).decode())

    def read(self, samples: Samples) -> None:
        """Waits until samples (N,) are filled.

        Raises:
            DeviceError: the device or the server is gone.
        """
        self._done(self.simple.pa_simple_read, samples)

    def write(self, samples: Samples) -> None:
        """Waits until there is room for samples (N,).

        Raises:
            DeviceError: the device or the server is gone.
        """
        self._done(self.simple.pa_simple_write, samples)

    def _done(self, function: Any, samples: Samples) -> None:
        size = samples.nbytes
        if function(self.handle, samples.ctypes.data, size, ctypes.byref(self.error)) < 0:
            raise DeviceError(f"the sound server took its device away: {self.problem}")

    @property
    def latency(self) -> float:
        """Seconds since what is read next was said, or until what is written next sounds, as the
        server says."""
        return float(self.simple.pa_simple_get_latency(self.handle, None)) / 1e6

    def close(self) -> None:
        """Ends it."""
        handle, self.handle = self.handle, None
        if handle:
            self.simple.pa_simple_free(handle)
