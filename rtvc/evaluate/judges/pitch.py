"""How well a conversion keeps the source's melody: the correlation of the two F0 tracks.

The tracks are SwiftF0's (Nieradzik 2025, arXiv 2508.18440). On twelve of this project's evaluation
recordings, its tracks of a sentence and of the same sentence with noise at 20 dB correlate by 1.00,
those of WORLD's Harvest (with StoneMask and D4C LoveTrain) by 0.96: that much of any correlation
would be the estimator's own error.
"""

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from rtvc.evaluate.audio import Wave, at_16k
from rtvc.evaluate.judges.optional import need

METHOD = (
    "Pearson correlation of log F0 (SwiftF0, 47-600 Hz, every 16 ms) over the frames voiced in"
    " both, sound below 75 Hz taken out"
)
LOWEST, HIGHEST, VOICED = 46.875, 600.0, 0.5
"""Hz, Hz, and the confidence from which a frame counts as voiced."""
HUM, QUIET = 75.0, 25.0
"""A mains hum in pauses is no melody: sound below so many Hz is taken out, and a voiced frame may
be so many dB below the loud ones."""
PAD = 400
"""Zeros, 25 ms, around what is filtered: its edges settle in them."""
MINIMUM = 7
"""Common voiced frames (0.1 s) below which there is no correlation to speak of."""

Track = npt.NDArray[np.float64]
"""(T,) F0 in Hz every 16 ms, 0 where unvoiced."""


@functools.cache
def _detector() -> Any:
    return need("swift_f0").SwiftF0(threads=1)


@functools.cache
def _high_pass() -> npt.NDArray[np.float64]:
    """Butterworth, order 4; run forwards and backwards it shifts nothing in time. A voice below it
    keeps its harmonics."""
    return np.asarray(need("scipy.signal").butter(4, HUM, "highpass", fs=16000, output="sos"))


def f0(wave: Wave) -> Track:
    """(N,) at 24 kHz -> (N / 384,) F0 in Hz every 16 ms, 0 where unvoiced."""
    if not len(wave):
        return np.zeros(0)
    filtered = need("scipy.signal").sosfiltfilt(_high_pass(), np.pad(at_16k(wave), PAD))[PAD:-PAD]
    detected = _detector().detect(filtered.astype(np.float32), 16000, LOWEST, HIGHEST)
    floor = np.percentile(detected.loudness_db, 95) - QUIET
    return np.where(
        (detected.confidence >= VOICED) & (detected.loudness_db > floor), detected.pitch_hz, 0.0
    )


def f0_pcc(a: Wave, b: Wave, lag: int = 0) -> float:
    """The correlation of two recordings' melodies, from -1 to 1; NaN if they share under 0.1 s of
    voiced speech.

    Args:
        a: (N,) at 24 kHz, the source.
        b: (M,) at 24 kHz, its conversion.
        lag: samples by which b lags a; the known latency of a converter that does not trim it.
    """
    return pcc(f0(a), f0(aligned(b, lag)))


def aligned(wave: Wave, lag: int) -> Wave:
    """The wave (N,) without its first `lag` samples; with so many zeros before it where `lag` is
    negative."""
    return wave[lag:] if lag >= 0 else np.pad(wave, (-lag, 0))


def pcc(a: Track, b: Track) -> float:
    """The same of two F0 tracks, (T,) and (U,), frame by frame from the start."""
    frames = min(len(a), len(b))
    voiced = (a[:frames] > 0) & (b[:frames] > 0)
    if voiced.sum() < MINIMUM:
        return float("nan")
    x, y = np.log(a[:frames][voiced]), np.log(b[:frames][voiced])
    if x.std() < 1e-9 or y.std() < 1e-9:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])
