"""How well a conversion keeps the source's melody: the correlation of the two F0 tracks."""

import numpy as np
import numpy.typing as npt

from rtvc.evaluate.audio import Wave, at_16k
from rtvc.evaluate.optional import need

PERIOD = 12.5
"""Milliseconds between F0 estimates."""
MINIMUM = 8
"""Common voiced frames (0.1 s) below which there is no correlation to speak of."""

METHOD = "Pearson correlation of log F0 (WORLD Harvest, 60-600 Hz, StoneMask, every 12.5 ms) over the frames voiced in both"


def f0(wave: Wave) -> npt.NDArray[np.float64]:
    """(N,) at 24 kHz -> (T,) F0 in Hz every 12.5 ms, 0 where unvoiced."""
    world = need("pyworld")
    heard = at_16k(wave).astype(np.float64)
    track, times = world.harvest(heard, 16000, f0_floor=60.0, f0_ceil=600.0, frame_period=PERIOD)
    return np.asarray(world.stonemask(heard, track, times, 16000))


def f0_pcc(a: Wave, b: Wave, lag: int = 0) -> float:
    """The correlation of two recordings' melodies, from -1 to 1; NaN if they share under 0.1 s of voiced speech.

    Args:
        a: (N,) at 24 kHz, the source.
        b: (M,) at 24 kHz, its conversion.
        lag: samples by which b lags a; the known latency of a converter that does not trim it.
    """
    return pcc(f0(a), f0(b[lag:] if lag >= 0 else np.pad(b, (-lag, 0))))


def pcc(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """The same of two F0 tracks, (T,) and (U,), frame by frame from the start."""
    frames = min(len(a), len(b))
    voiced = (a[:frames] > 0) & (b[:frames] > 0)
    if voiced.sum() < MINIMUM:
        return float("nan")
    x, y = np.log(a[:frames][voiced]), np.log(b[:frames][voiced])
    if x.std() < 1e-9 or y.std() < 1e-9:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])
