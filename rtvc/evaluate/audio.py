"""Recordings for the evaluators: 24 kHz mono in memory, 16 kHz where an evaluator was trained at it."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from rtvc.errors import AudioError

RATE = 24000
"""Every waveform between the evaluators is at this rate, in Hz."""

Wave = npt.NDArray[np.float32]
"""(N,) mono samples, full scale 1."""


def read(path: Path) -> Wave:
    """A recording of any rate and channel count as (N,) float32 at 24 kHz.

    Raises:
        AudioError: the file is missing, empty or not a format that libsndfile reads.
    """
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.SoundFileError) as error:
        raise AudioError(f"cannot read {path}: {error}; give an audio file that libsndfile reads (wav, flac, ogg, mp3)") from error
    if not len(samples):
        raise AudioError(f"{path} holds no samples; give a recording of speech")
    return resample(samples.mean(1), rate, RATE)


def resample(wave: Wave, source: float, target: float) -> Wave:
    """(N,) samples at `source` Hz -> (N * target / source,) at `target` Hz, float32."""
    if source == target:
        return np.ascontiguousarray(wave, dtype=np.float32)
    return np.asarray(soxr.resample(np.ascontiguousarray(wave, dtype=np.float32), source, target), dtype=np.float32)


def at_16k(wave: Wave) -> Wave:
    """(N,) at 24 kHz -> (2N / 3,) at 16 kHz."""
    return resample(wave, RATE, 16000)
