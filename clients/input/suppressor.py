"""Takes noise out of a microphone while somebody speaks: RNNoise (Valin 2018, "A Hybrid DSP/Deep
Learning Approach to Real-Time Full-Band Speech Enhancement").

The library comes with PyPI `pyrnnoise` and is called directly: its Python side rounds to 16 bits
and imports a plotting library.
"""

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtvc.engine.streams.resampler import Resampler
from rtvc.errors import DependencyError

Samples = NDArray[np.float32]

FULL_SCALE = 32_768.0
"""Samples of the library are floats of the range of 16-bit integers."""
LIBRARIES = {"linux": "librnnoise.so", "darwin": "librnnoise.dylib", "win32": "rnnoise.dll"}


class Framed:
    """A suppressor that works in frames at a rate of its own, on blocks of any size and rate.

    Args:
        rate: of the blocks, in Hz.
        own_rate: of the frames.
        frame: samples in one.
        process: a frame (frame,) -> one without noise.
        delay: seconds by which that lags.

    Attributes:
        late: seconds by which what leaves is older than what came.
    """

    def __init__(
        self,
        rate: int,
        own_rate: int,
        frame: int,
        process: Callable[[Samples], Samples],
        delay: float,
    ) -> None:
        self._frame, self._process = frame, process
        self._entry, self._exit = Resampler(rate, own_rate), Resampler(own_rate, rate)
        waits = frame / own_rate + self._entry.delay + self._exit.delay
        held = -(-round(waits * rate * 1e6) // 1_000_000)
        self.late = held / rate + delay
        self._in: Samples = np.zeros(0, np.float32)
        self._out: Samples = np.zeros(held, np.float32)

    def __call__(self, block: Samples) -> Samples:
        """A block (N,) float32 in [-1, 1] -> as many samples."""
        waiting = np.concatenate([self._in, self._entry.push(block)])
        whole = len(waiting) - len(waiting) % self._frame
        done = [
            self._process(waiting[at : at + self._frame]) for at in range(0, whole, self._frame)
        ]
        self._in = waiting[whole:]
        fresh = self._exit.push(np.concatenate([np.zeros(0, np.float32), *done]))
        out = np.concatenate([self._out, fresh])
        self._out = out[len(block) :]
        return out[: len(block)]


@cache
def library() -> Any:
    """RNNoise.

    Raises:
        DependencyError: pyrnnoise is not installed, or has no library for this machine.
    """
    spec = find_spec("pyrnnoise")
    name = LIBRARIES.get(sys.platform)
    path = Path(spec.origin).parent / name if spec and spec.origin and name else None
    if path is None or not path.is_file():
        raise DependencyError(
            "noise suppression needs RNNoise: pip install --no-deps pyrnnoise, or leave --denoise"
            " away"
        )
    found = ctypes.CDLL(str(path))
    found.rnnoise_create.argtypes, found.rnnoise_create.restype = [ctypes.c_void_p], ctypes.c_void_p
    found.rnnoise_destroy.argtypes = [ctypes.c_void_p]
    pointer = ctypes.POINTER(ctypes.c_float)
    found.rnnoise_process_frame.argtypes = [ctypes.c_void_p, pointer, pointer]
    found.rnnoise_process_frame.restype = ctypes.c_float
    return found


class RNNoise:
    """One stream: frames (480,) at 48 kHz."""

    rate, frame = 48_000, 480
    delay = 0.020
    """Seconds by which its output lags: a frame that overlaps the next, and one of look-ahead."""

    def __init__(self) -> None:
        self._library = library()
        self._state = self._library.rnnoise_create(None)

    def __call__(self, frame: Samples) -> Samples:
        """A frame without noise."""
        scaled = (frame * FULL_SCALE).astype(np.float32)
        at = scaled.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        self._library.rnnoise_process_frame(self._state, at, at)
        return np.clip(scaled / FULL_SCALE, -1, 1).astype(np.float32)

    def __del__(self) -> None:
        if (state := getattr(self, "_state", None)) is not None:
            self._library.rnnoise_destroy(state)


def suppressor(rate: int) -> Framed:
    """The noise suppressor for a microphone of a rate, in Hz.

    Raises:
        DependencyError: its package is not installed.
    """
    one = RNNoise()
    return Framed(rate, one.rate, one.frame, one, one.delay)
