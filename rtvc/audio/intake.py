"""What `check_recording` asks of a recording, gathered block by block: memory does not grow with
its length.
"""

import numpy as np
import numpy.typing as npt

from rtvc.audio.channels import PIECE, Channels
from rtvc.audio.samples import Samples

FLAT = 3
"""Neighbouring samples at the same extreme that make a clipped peak."""
TOP = 0.985
"""Share of the highest level above which equal neighbours are clipped."""
QUIET = 0.1
"""Flat tops of a recording that never exceeds this are quantisation."""


class FlatTops:
    """Runs of FLAT or more equal samples near the highest level of one channel, which only the end
    knows.
    """

    def __init__(self) -> None:
        self.level, self.length = 0.0, 0  # the run that reaches the end of what came so far
        self.runs: dict[float, int] = {}  # samples in runs, by level

    def add(self, column: Samples, peak: float) -> None:
        """column (N,): the next samples; `peak` is the highest level of the recording so far."""
        high = np.flatnonzero(np.abs(column) >= TOP * max(peak, QUIET))
        if not len(high):
            self._close()
            return
        fresh = np.concatenate([[True], (np.diff(high) > 1) | (np.diff(column[high]) != 0)])
        starts = np.flatnonzero(fresh)
        lengths, values = np.diff(np.append(starts, len(high))), column[high[starts]]
        if high[0] == 0 and values[0] == self.level:
            lengths[0] += self.length
        else:
            self._close()
        self.level, self.length = 0.0, 0
        if high[-1] == len(column) - 1:
            self.level, self.length = float(values[-1]), int(lengths[-1])
            lengths, values = lengths[:-1], values[:-1]
        flat = lengths >= FLAT
        levels, which = np.unique(np.abs(values[flat]), return_inverse=True)
        for level, samples in zip(
            levels.tolist(), np.bincount(which, lengths[flat]).tolist(), strict=True
        ):
            self.runs[level] = self.runs.get(level, 0) + int(samples)

    def total(self, peak: float) -> int:
        """Clipped samples, now that the highest level is known."""
        self._close()
        return sum(samples for level, samples in self.runs.items() if level >= TOP * peak)

    def forget(self, peak: float) -> None:
        """Lets go of runs that are too low to count by now."""
        self.runs = {level: samples for level, samples in self.runs.items() if level >= TOP * peak}

    def _close(self) -> None:
        if self.length >= FLAT:
            level = abs(self.level)
            self.runs[level] = self.runs.get(level, 0) + self.length
        self.level, self.length = 0.0, 0


class Loudest:
    """The power of the loudest tenth of a second of every channel."""

    def __init__(self, count: int, rate: int) -> None:
        self.size = max(1, rate // 10)
        self.rest: npt.NDArray[np.float64] = np.zeros((0, count))
        self.power: npt.NDArray[np.float64] = np.zeros(count)

    def add(self, block: Samples) -> None:
        """block (N, C): the next samples."""
        squares = np.concatenate([self.rest, np.square(block, dtype=np.float64)])
        whole = len(squares) // self.size * self.size
        if whole:
            powers = squares[:whole].reshape(-1, self.size, squares.shape[1]).mean(1)
            self.power = np.maximum(self.power, powers.max(0))
        self.rest = squares[whole:]

    def end(self) -> npt.NDArray[np.float64]:
        """(C,): the last, shorter stretch counts as if silence followed."""
        last: npt.NDArray[np.float64] = self.rest.sum(0) / self.size
        return np.maximum(self.power, last, out=last)


class Intake:
    """Everything that is known of a recording after it was looked through once.

    Attributes:
        frames: samples a channel.
        bad: samples that are NaN or infinite, of all channels.
        peak: the highest level.
        channels: what there is to mix.
    """

    def __init__(self, count: int, rate: int) -> None:
        """`count` channels at `rate` Hz."""
        self.frames = self.bad = 0
        self.peak = 0.0
        self.count, self.rate = count, rate
        self.channels, self.loudest = Channels(count), Loudest(count, rate)
        self.tops = [FlatTops() for _ in range(count)]

    def add(self, block: Samples) -> None:
        """block (N, C): the next samples."""
        step = max(1, PIECE // self.count)
        for start in range(0, len(block), step):
            self._add(block[start : start + step])

    def _add(self, block: Samples) -> None:
        self.frames += len(block)
        bad = int(np.count_nonzero(~np.isfinite(block)))
        if bad:
            self.bad += bad
            return
        peak = float(np.abs(block).max(initial=0))
        rises = peak > self.peak
        self.peak = max(self.peak, peak)
        self.channels.add(block)
        self.loudest.add(block)
        for tops, column in zip(self.tops, block.T, strict=True):
            if rises:
                tops.forget(self.peak)
            tops.add(column, self.peak)

    @property
    def clipped(self) -> float:
        """The share of clipped samples; to be asked once, at the end."""
        if self.peak < QUIET:
            return 0.0
        return sum(tops.total(self.peak) for tops in self.tops) / max(1, self.frames * self.count)

    @property
    def level(self) -> float:
        """Of the loudest tenth of a second of the loudest channel, in dBFS; -inf for zeros."""
        power = float(self.loudest.end().max(initial=0))
        return float(10 * np.log10(power)) if power > 0 else -np.inf
