"""From several channels to one: as loud as the loudest, without those that are silent or would
cancel it.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rtvc.audio.samples import Samples

FRAME = 64
"""Samples over which a channel's mean and slope are taken out before its power is measured: DC and
rumble, of which a low-frequency channel or a bad converter is full, are no speech."""
SILENT = 1e-3
"""Share of the loudest channel's power, -30 dB, below which a channel is left out."""
CANCELLED = 0.25
"""Share of the loudest channel's power, -6 dB, below which the mix has lost too much: channels are
opposed.
"""
EQUAL = 1e-3
"""Gains closer to 1 than this are left away."""
PIECE = 1 << 18
"""Samples that are looked at in one step."""


class Mix(NamedTuple):
    """What becomes of the channels.

    Attributes:
        weights: (C,) float32, of each in the sum.
        lost: dB by which the mean would be quieter than the loudest channel, where that was too
        much
            and the loudest is used alone; else 0.
    """

    weights: Samples
    lost: float


class Channels:
    """How much of each of `count` channels there is, and how much they have in common, block after
    block.
    """

    def __init__(self, count: int) -> None:
        self.products: npt.NDArray[np.float64] = np.zeros((count, count))
        self.rest: Samples = np.zeros((0, count), np.float32)
        line = np.stack([np.ones(FRAME), np.arange(FRAME) - (FRAME - 1) / 2])
        self.line = line / np.linalg.norm(line, axis=1, keepdims=True)

    def add(self, block: Samples) -> None:
        """block (N, C): the next samples."""
        if block.shape[1] == 1:
            return
        samples = np.concatenate([self.rest, block])
        whole = len(samples) // FRAME * FRAME
        self.rest = samples[whole:].copy()
        self._measure(samples[:whole].astype(np.float64).reshape(-1, FRAME, block.shape[1]))

    def _measure(self, frames: npt.NDArray[np.float64]) -> None:
        """frames (T, FRAME, C)."""
        flat = (frames - self.line.T @ (self.line @ frames)).reshape(-1, frames.shape[2])
        self.products += flat.T @ flat

    def mix(self) -> Mix:
        """The weights of all that was added: each channel by its level, the sum as loud as the
        loudest of them.
        """
        if len(self.rest):
            self._measure(
                np.pad(
                    self.rest.astype(np.float64), ((0, FRAME - len(self.rest)), (0, 0)), mode="edge"
                )[None]
            )
            self.rest = self.rest[:0]
        powers = np.diag(self.products)
        best, count = int(powers.argmax()), len(powers)
        if powers[best] <= 0:
            return Mix(np.full(count, 1 / count, np.float32), 0.0)
        levels = np.sqrt(np.where(powers >= SILENT * powers[best], powers, 0))
        weights = levels / levels.sum()
        power = float(weights @ self.products @ weights) / powers[best]
        if power < CANCELLED:
            lost = float(-10 * np.log10(max(power, 1e-10)))
            return Mix(np.eye(count, dtype=np.float32)[best], lost)
        gain = power**-0.5
        return Mix((weights * (gain if abs(gain - 1) > EQUAL else 1)).astype(np.float32), 0.0)


def mix_of(wave: Samples) -> Mix:
    """What becomes of the channels of wave (N, C)."""
    channels, step = Channels(wave.shape[1]), max(FRAME, PIECE // wave.shape[1] // FRAME * FRAME)
    for start in range(0, len(wave), step):
        channels.add(wave[start : start + step])
    return channels.mix()


def mixed(block: Samples, mix: Mix) -> Samples:
    """block (N, C) -> (N,)."""
    chosen = np.flatnonzero(mix.weights)
    if len(chosen) == 1 and mix.weights[chosen[0]] == 1:
        alone: Samples = block[:, chosen[0]]
        return alone
    sum_: Samples = block @ mix.weights
    return sum_
