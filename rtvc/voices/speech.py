"""Where in a recording somebody speaks: frames that rise above the noise near others that have a
pitch.

Noise and silence have no pitch; hum, tones and chords do not rise. Loudness is judged against the
recording's own quiet and loud parts; a pitch is a peak of the autocorrelation of the band that
holds the first harmonics (Rabiner 1977, "On the use of autocorrelation analysis for pitch
detection"). No model is needed: every model's references, and recordings for training, are
measured alike.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rtvc.audio.resample import Samples, resample

RATE = 8_000
"""Hz at which a recording is looked at."""
STEP, FRAME = 80, 320
"""Samples between two frames and in one: 10 and 40 ms."""
FFT = 1024
LOWEST, HIGHEST = 80.0, 1000.0
"""Hz of the band in which a pitch is looked for; it is tilted by 3 dB an octave, which makes pink
noise white.
"""
SHORTEST, LONGEST = 16, 133
"""Samples of a pitch period: 500 down to 60 Hz."""
VOICED = 0.65
"""Height of the autocorrelation's peak, of 1, from which a frame has a pitch: noise stays below
0.6.
"""
RUN = 5
"""Frames in a row that must have one."""
REACH = 25
"""Frames by which consonants may be away from the next frame with a pitch: 0.25 s."""
RISE, SHARE = 6.0, 0.35
"""dB by which speech must rise above the quietest frames, and the share of the recording's
range.
"""
FLOOR, ABSOLUTE = -100.0, -70.0
"""dBFS that frames are taken to have at least, and above which speech lies."""
LAG = 5
"""Frames over which a pitch is seen to move: 50 ms."""
STILL, JUMP = 0.004, 0.2
"""Natural logarithms of the pitch's change in that time: speech moves by more than the first,
notes by less, or by more than the second at once."""
MOVING = 0.3
"""Share of moving pitches from which it is a speaker's: in speech it is 0.5 to 0.9, in music 0 to
0.26.
"""
DEEP = 25.0
"""dB between a recording's loud and quiet frames from which a still pitch may yet be somebody's."""


@dataclass(frozen=True)
class Speech:
    """What was found.

    Attributes:
        frames: (T,) bool, one every 10 ms: whether somebody speaks.
        moving: the share of pitches that move as those of speech do; 1 where there is none.
    """

    frames: npt.NDArray[np.bool_]
    moving: float

    @property
    def seconds(self) -> float:
        """Of speech."""
        return float(self.frames.sum()) * STEP / RATE


def find_speech(wave: Samples, rate: int) -> Speech:
    """wave (N,) at `rate` Hz, best some ten seconds of it -> where somebody speaks."""
    samples = np.asarray(resample(wave, rate, RATE), np.float64)
    samples = np.pad(samples, (0, max(0, FRAME - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::STEP]
    # Variances: a recording's DC is no loudness, nor does the model hear it.
    levels = np.maximum(10 * np.log10(np.maximum(frames.var(1), 1e-30)), FLOOR)
    quiet, loud = np.percentile(levels, [10, 95])
    rises = levels > max(quiet + max(RISE, SHARE * (loud - quiet)), ABSOLUTE)
    peak, period = pitch(frames)
    voiced = runs(rises & (peak > VOICED), RUN)
    moving = moves(voiced, period)
    if moving < MOVING and loud - quiet < DEEP:
        return Speech(np.zeros(len(levels), np.bool_), moving)
    return Speech(rises & widened(voiced, REACH), moving)


def pitch(
    frames: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """frames (T, FRAME) -> how periodic each is, up to 1, and its period in samples, (T,) each."""
    window = np.hanning(FRAME + 2)[1:-1]
    hertz = np.fft.rfftfreq(FFT, 1 / RATE)
    tilt = np.where((hertz >= LOWEST) & (hertz <= HIGHEST), hertz / HIGHEST, 0.0)
    # A windowed signal's autocorrelation falls with the window's own, at every lag; divided by it,
    # a long period is no worse than a short one (Boersma 1993).
    own = np.fft.irfft(np.square(np.abs(np.fft.rfft(window, FFT))))[: LONGEST + 2]
    products = []
    for part in np.array_split(frames, max(1, len(frames) // 1000)):
        power = np.square(np.abs(np.fft.rfft(part * window, FFT))) * tilt
        products.append(np.fft.irfft(power)[:, : LONGEST + 2])
    correlations = np.concatenate(products)
    correlations = correlations / np.maximum(correlations[:, :1], 1e-30) / (own / own[0])
    at, rows = (
        correlations[:, SHORTEST : LONGEST + 1].argmax(1) + SHORTEST,
        np.arange(len(correlations)),
    )
    before, peak, after = (
        correlations[rows, at - 1],
        correlations[rows, at],
        correlations[rows, at + 1],
    )
    # The maximum of a parabola through the three points: periods are finer than samples.
    curve = before - 2 * peak + after
    shift = np.where(curve < 0, (before - after) / (2 * np.minimum(curve, -1e-12)), 0.0)
    return peak, at + shift.clip(-0.5, 0.5)


def moves(voiced: npt.NDArray[np.bool_], period: npt.NDArray[np.float64]) -> float:
    """The share of frames that are voiced now and LAG frames later whose pitch moved in between,
    but did not jump.
    """
    both = voiced[LAG:] & voiced[:-LAG]
    if not both.any():
        return 1.0
    change = np.abs(np.log(period[LAG:] / period[:-LAG]))[both]
    return float(((change > STILL) & (change < JUMP)).mean())


def runs(mask: npt.NDArray[np.bool_], least: int) -> npt.NDArray[np.bool_]:
    """The mask (T,) without runs of fewer than `least` frames."""
    edges = np.diff(np.concatenate([[0], mask.astype(np.int8), [0]]))
    kept = np.zeros_like(mask)
    for start, stop in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True):
        kept[start:stop] = stop - start >= least
    return kept


def widened(mask: npt.NDArray[np.bool_], frames: int) -> npt.NDArray[np.bool_]:
    """The mask (T,), true also within so many frames of where it is true."""
    total = np.concatenate([[0], np.cumsum(mask)])
    at = np.arange(len(mask))
    near: Any = total[np.minimum(at + frames + 1, len(mask))] > total[np.maximum(at - frames, 0)]
    return np.asarray(near)


def closed(mask: npt.NDArray[np.bool_], frames: int) -> npt.NDArray[np.bool_]:
    """The mask (T,) without gaps of up to `frames` frames, those at either end included."""
    edges = np.diff(np.concatenate([[1], mask.astype(np.int8), [1]]))
    filled = mask.copy()
    for start, stop in zip(np.flatnonzero(edges == -1), np.flatnonzero(edges == 1), strict=True):
        filled[start:stop] = stop - start <= frames
    return filled
