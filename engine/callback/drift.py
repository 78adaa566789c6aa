"""Two sound cards never agree on what a second is: the output is resampled by the few parts per
million that they differ.

The controller watches how many samples wait before playback and steers the resampler so that this
stays level; it is a plain proportional-integral loop, slow enough not to be heard (under 0.2 % of
pitch, 3 cents).
"""

import numpy as np
from numpy.typing import NDArray

from rtvc.audio.samples import Samples

HALF = 16
"""Taps on each side of the interpolation kernel."""
PHASES = 512
"""Rows of the kernel table; between them it is interpolated linearly, with errors under -100 dB."""
LIMIT = 2e-3
"""Largest correction, as a share of the rate."""
KP, KI = 0.1, 0.0025
"""Gains on the error in seconds and on its integral: critically damped, with a time constant of 20
s."""


def table() -> NDArray[np.float64]:
    """Kaiser-windowed sinc kernels (PHASES + 1, 2 * HALF); the first row is a unit impulse, so that
    no correction is no change."""
    offsets = np.arange(1 - HALF, HALF + 1)[None, :] - np.arange(PHASES + 1)[:, None] / PHASES
    window = np.i0(9.0 * np.sqrt(np.clip(1 - (offsets / HALF) ** 2, 0, None))) / np.i0(9.0)
    kernels = np.sinc(offsets) * window
    return np.asarray(kernels / kernels.sum(1, keepdims=True))


class DriftResampler:
    """Resamples a stream by a ratio near one that may change from block to block."""

    def __init__(self) -> None:
        self.table = table()
        self.kept: Samples = np.zeros(HALF - 1, np.float32)
        self.position = 0.0  # of the next output sample, counted from kept[HALF - 1]

    def push(self, block: Samples, correction: float) -> Samples:
        """block (N,) -> about N * (1 + correction) samples: a positive correction makes more of
        them."""
        self.kept = np.concatenate([self.kept, block])
        step = 1 / (1 + float(np.clip(correction, -LIMIT, LIMIT)))
        available = len(self.kept) - (2 * HALF - 1)  # positions below this have all their taps
        count = max(0, int(np.ceil((available - self.position) / step)))
        if not count:
            return np.zeros(0, np.float32)
        positions = self.position + step * np.arange(count)
        starts = np.floor(positions).astype(np.int64)
        phases = (positions - starts) * PHASES
        rows = phases.astype(np.int64)
        share = (phases - rows)[:, None]
        kernels = (1 - share) * self.table[rows] + share * self.table[rows + 1]
        windows = np.lib.stride_tricks.sliding_window_view(self.kept, 2 * HALF)[starts]
        samples: Samples = (windows * kernels).sum(1).astype(np.float32)
        following = float(positions[-1] + step)
        used = int(following)
        self.kept, self.position = self.kept[used:].copy(), following - used
        return samples


class DriftControl:
    """Steers a `DriftResampler` from the level of a playback queue.

    Args:
        target: seconds of audio that should wait.
    """

    def __init__(self, target: float) -> None:
        self.target, self.integral, self.correction = target, 0.0, 0.0

    def update(self, level: float, elapsed: float) -> float:
        """The correction for the next stretch, given the present level and the time since the last
        call, in seconds."""
        error = self.target - level
        bound = LIMIT / KI
        self.integral = float(np.clip(self.integral + error * elapsed, -bound, bound))
        self.correction = float(np.clip(KP * error + KI * self.integral, -LIMIT, LIMIT))
        return self.correction
