"""What is done to a microphone before it is converted: noise out, level right; either may be
switched while somebody speaks."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from rtvc.audio.samples import Samples
from rtvc.clients.input.gain import SlowGain

FADE_S = 0.020
"""Seconds in which one treatment gives way to another."""


class Suppressor(Protocol):
    """Takes noise out of a stream.

    Attributes:
        late: seconds by which what leaves is older than what came.
    """

    late: float

    def __call__(self, block: Samples) -> Samples:
        """A block (N,) -> as many samples."""
        ...


class Front:
    """`front(block)` is the block as the converter should hear it.

    Args:
        rate: samples a second.
        suppress: makes the suppressor when it is first wanted.
        denoise: whether it is wanted from the beginning.
        agc: whether the slow gain is.

    Attributes:
        gain: the slow gain, while it is on.

    Raises:
        DependencyError: the suppressor's package is not installed.
    """

    def __init__(
        self,
        rate: int,
        suppress: Callable[[int], Suppressor],
        *,
        denoise: bool = False,
        agc: bool = False,
    ) -> None:
        self.rate, self._suppress = rate, suppress
        self._fade = round(FADE_S * rate)
        self.suppressor: Suppressor | None = None
        self.gain: SlowGain | None = None
        self._before: list[Callable[[Samples], Samples]] | None = None
        self.set(denoise=denoise, agc=agc)

    @property
    def late(self) -> float:
        """Seconds by which what leaves is older than what came."""
        return self.suppressor.late if self.suppressor else 0.0

    def set(self, *, denoise: bool, agc: bool) -> None:
        """Switches; what changes is faded into the next block.

        Raises:
            DependencyError: the suppressor's package is not installed.
        """
        suppressor = (self.suppressor or self._suppress(self.rate)) if denoise else None
        before = self._stages()
        self.gain = (self.gain or SlowGain(self.rate)) if agc else None
        self.suppressor = suppressor
        if before != self._stages():
            self._before = before

    def __call__(self, block: Samples) -> Samples:
        """A block (N,) float32 in [-1, 1] -> as many samples."""
        stages, before, self._before = self._stages(), self._before, None
        y = block
        for stage in stages:
            y = stage(y)
        if before is not None:
            old = block
            for stage in before:
                if stage not in stages:
                    old = stage(old)
            fade = min(self._fade, len(block))
            rise = (np.arange(fade, dtype=np.float32) + 1) / fade
            y = y.copy()
            y[:fade] = rise * y[:fade] + (1 - rise) * old[:fade]
        return y

    def _stages(self) -> list[Callable[[Samples], Samples]]:
        return [stage for stage in (self.suppressor, self.gain) if stage is not None]
