"""Recordings for the evaluators: 24 kHz mono in memory, 16 kHz where an evaluator was trained at
it."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from rtvc.audio import recording
from rtvc.audio.mel import SAMPLE_RATE
from rtvc.audio.resample import resample

RATE = SAMPLE_RATE
"""Every waveform between the evaluators is at this rate, 24 kHz."""

Wave = npt.NDArray[np.float32]
"""(N,) mono samples, full scale 1."""


def read(path: Path) -> Wave:
    """A recording of any rate and channel count as (N,) float32 at 24 kHz.

    Raises:
        AudioError: the file is missing, or nothing that libsndfile reads.
    """
    wave: Wave = recording.read(path, checked=False).numpy()
    return wave


def at_16k(wave: Wave) -> Wave:
    """(N,) at 24 kHz -> (2N / 3,) at 16 kHz."""
    return resample(wave, RATE, 16000)
