"""The noise suppressor that was the other candidate for `--denoise`: RNNoise (Valin 2018, "A Hybrid
DSP/Deep Learning Approach to Real-Time Full-Band Speech Enhancement").

The library comes with PyPI `pyrnnoise` and is called directly: its Python side rounds to 16 bits
and imports a plotting library.
"""

import ctypes
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from rtvc.audio.samples import Samples
from rtvc.clients.input.suppressor import Framed
from rtvc.errors import DependencyError

FULL_SCALE = 32_768.0
"""Samples of the library are floats of the range of 16-bit integers."""
LIBRARIES = {"linux": "librnnoise.so", "darwin": "librnnoise.dylib", "win32": "rnnoise.dll"}


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
        raise DependencyError("RNNoise is missing: pip install --no-deps pyrnnoise")
    loaded = ctypes.CDLL(str(path))
    loaded.rnnoise_create.argtypes, loaded.rnnoise_create.restype = (
        [ctypes.c_void_p],
        ctypes.c_void_p,
    )
    loaded.rnnoise_destroy.argtypes = [ctypes.c_void_p]
    pointer = ctypes.POINTER(ctypes.c_float)
    loaded.rnnoise_process_frame.argtypes = [ctypes.c_void_p, pointer, pointer]
    loaded.rnnoise_process_frame.restype = ctypes.c_float
    return loaded


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


def rnnoise(rate: int) -> Framed:
    """RNNoise for a microphone of a rate, in Hz.

    Raises:
        DependencyError: its package is not installed.
    """
    one = RNNoise()
    return Framed(rate, one.rate, one.frame, one, one.delay)
