"""Takes noise out of a microphone while somebody speaks: Hush, a small DeepFilterNet 3 (Schröter et
al. 2023, "DeepFilterNet: Perceptually Motivated Real-Time Speech Enhancement") at 16 kHz.

It comes with PyPI `livekit-plugins-hush` (Apache-2.0) as ONNX files and numpy. The package's own
door opens LiveKit, which nothing here needs: its model is taken by itself. `rtvc bench noise` chose
it; RNNoise was the other one.
"""

import importlib
import sys
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from rtvc.audio.samples import Samples
from rtvc.engine.streams.resampler import Resampler
from rtvc.errors import DependencyError

HUSH, ALONE = "livekit.plugins.hush", "rtvc_hush"
"""The package, and the name under which its parts are imported without its door."""
RATE, FRAME, DELAY_S = 16_000, 160, 0.010
"""Its sample rate in Hz, the samples of a frame, and the seconds by which its output lags: one
frame, which overlaps the next."""


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
        ready: Samples = out[: len(block)]
        return ready


@cache
def package() -> ModuleType:
    """The part of the package that holds the model.

    Raises:
        DependencyError: it or ONNX Runtime is not installed.
    """
    try:
        spec = find_spec(HUSH)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None or find_spec("onnxruntime") is None:
        raise DependencyError(
            "noise suppression needs Hush: pip install --no-deps livekit-plugins-hush onnxruntime,"
            " or leave --denoise away"
        )
    alone = ModuleType(ALONE)
    alone.__path__ = [str(Path(spec.origin).parent)]
    sys.modules[ALONE] = alone
    return importlib.import_module(f"{ALONE}._hush_model")


@cache
def model() -> Any:
    """The weights, shared by all streams: their state is passed in and out.

    Raises:
        DependencyError: as `package`.
    """
    return package().HushModel()


def suppressor(rate: int) -> Framed:
    """The noise suppressor for a microphone of a rate, in Hz.

    Raises:
        DependencyError: its package is not installed.
    """
    session = package().HushSession(model())

    def process(frame: Samples) -> Samples:
        clean = np.asarray(session.process_frame(frame), np.float32)
        return np.clip(clean, -1, 1)

    return Framed(rate, RATE, FRAME, process, DELAY_S)
