"""Changing the sample rate of whole recordings, by soxr.

Streams do not use it: soxr's own streams hold back up to 39 ms between 48 and 24 kHz, on the way in and again on the
way out. The edges of a session (`rtvc.engine.edges`) resample sample by sample instead.
"""

import numpy as np
import numpy.typing as npt

from rtvc.errors import AudioError

Samples = npt.NDArray[np.float32]

LOWEST_RATE, HIGHEST_RATE = 4_000, 768_000


def check_rate(rate: float) -> int:
    """A sample rate in Hz, if it is one.

    Raises:
        AudioError: no whole number from 4 to 768 kHz.
    """
    if isinstance(rate, bool) or not LOWEST_RATE <= rate <= HIGHEST_RATE or int(rate) != rate:
        raise AudioError(f"a sample rate of {rate} came, a whole number of Hz from {LOWEST_RATE} to {HIGHEST_RATE} was wanted")
    return int(rate)


def resampled_length(samples: int, source: int, target: int) -> int:
    """How many samples `samples` of them become: samples * target / source, rounded, halves upwards."""
    return (2 * samples * target + source) // (2 * source)


def resample(wave: Samples, source: int, target: int) -> Samples:
    """A whole recording at another rate, by soxr in its high quality: linear phase, aligned with the input.

    Args:
        wave: (N,) or (N, C) at `source` Hz.
        source: rate of the input in Hz.
        target: rate of the output in Hz.

    Returns:
        float32, (M,) or (M, C) with M = `resampled_length(N, source, target)`.
    """
    import soxr

    wave = np.ascontiguousarray(wave, dtype=np.float32)
    if check_rate(source) == check_rate(target):
        return wave
    resampled: Samples = soxr.resample(wave, source, target, quality="HQ")
    return resampled
