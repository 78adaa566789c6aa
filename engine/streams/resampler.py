"""One stateful resampler at each edge of a session: any rate, any block, sample-exact, and its
state is plain arrays.

A windowed-sinc interpolator evaluated only where an output sample falls (polyphase form; J. O.
Smith, "Digital Audio Resampling", section "Implementation"). Block sizes never show in its output:
every output sample is the same dot product over the same input samples. It adds no delay to the
alignment, only the wait for `half` input samples.
"""

from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtvc.audio.resample import check_rate
from rtvc.audio.samples import Samples

ZEROS = 16
"""Zero crossings of the sinc on each side, at the lower of the two rates: 0.67 ms at 24 kHz."""
ROLLOFF = 0.94
"""The cut-off as a share of the lower Nyquist frequency."""
KAISER_BETA = 9.0
"""Shape of the window: about 90 dB of stop-band attenuation."""
HIGHEST = 384_000
"""Highest sample rate in Hz that a session accepts at its edges."""


def kernel(offsets: NDArray[np.float64], cut: float) -> NDArray[np.float64]:
    """The windowed sinc at the given offsets, in input samples; `cut` is the cut-off over the
    input's Nyquist frequency."""
    width = ZEROS / cut
    inside = np.sqrt(np.clip(1 - (offsets / width) ** 2, 0, None))
    window = np.where(
        np.abs(offsets) < width, np.i0(KAISER_BETA * inside) / np.i0(KAISER_BETA), 0.0
    )
    return np.asarray(np.sinc(cut * offsets) * window)


class Resampler:
    """Converts a stream of mono samples from one whole rate to another.

    Output sample n lies exactly at input position n * rate_in / rate_out; N input samples give
    ceil(N * rate_out / rate_in) output samples once flushed.

    Args:
        rate_in: samples a second that come, in Hz.
        rate_out: samples a second wanted, in Hz.

    Raises:
        AudioError: for a rate that is no whole number from 4 to 384 kHz.
    """

    def __init__(self, rate_in: float, rate_out: float) -> None:
        self.rate_in, self.rate_out = check_rate(rate_in, HIGHEST), check_rate(rate_out, HIGHEST)
        common = gcd(self.rate_in, self.rate_out)
        self.up, self.down = self.rate_out // common, self.rate_in // common
        cut = min(1.0, rate_out / rate_in) * ROLLOFF
        self.half = 0 if rate_in == rate_out else int(np.ceil(ZEROS / cut))
        taps = np.arange(1 - self.half, self.half + 1)
        if self.half:
            bank = kernel(taps[None, :] - np.arange(self.up)[:, None] / self.up, cut)
            self.bank = bank / bank.sum(1, keepdims=True)
        self.reset()

    @property
    def delay(self) -> float:
        """Seconds of input that must follow a moment before its output can be computed."""
        return self.half / self.rate_in

    def reset(self) -> None:
        """Back to before the first sample."""
        self.received = self.produced = 0
        self.first = 1 - self.half  # input index of kept[0]
        self.kept: Samples = np.zeros(max(0, self.half - 1), np.float32)

    def length(self, received: int) -> int:
        """Output samples that `received` input samples amount to."""
        return -(-received * self.up // self.down)

    def push(self, block: Samples) -> Samples:
        """block (N,) float32 -> all output samples that are now determined, (N',) float32."""
        self.received += len(block)
        if not self.half:
            self.produced += len(block)
            return np.array(block, np.float32)
        self.kept = np.concatenate([self.kept, block])
        ready = max(
            0, self.received - self.half
        )  # output positions below this input index have all their taps
        return self._produce(self.length(ready))

    def flush(self) -> Samples:
        """The samples that still wait for input, as if silence followed; (N',) float32. The stream
        is over until `reset`."""
        if not self.half:
            return np.zeros(0, np.float32)
        self.kept = np.concatenate([self.kept, np.zeros(self.half, np.float32)])
        return self._produce(self.length(self.received))

    def _produce(self, until: int) -> Samples:
        """Output samples `produced` to `until`, and forgets input that no later one needs."""
        if until <= self.produced:
            return np.zeros(0, np.float32)
        steps = np.arange(self.produced, until, dtype=np.int64) * self.down
        starts = steps // self.up - (self.half - 1) - self.first
        windows = np.lib.stride_tricks.sliding_window_view(self.kept, 2 * self.half)[starts]
        samples: Samples = (windows * self.bank[steps % self.up]).sum(1).astype(np.float32)
        self.produced = until
        needed = until * self.down // self.up - (self.half - 1)
        self.kept, self.first = (
            self.kept[max(0, needed - self.first) :].copy(),
            max(self.first, needed),
        )
        return samples

    def state(self) -> dict[str, Any]:
        """Everything that a resampler of the same rates needs to go on from here."""
        return {
            "received": self.received,
            "produced": self.produced,
            "first": self.first,
            "kept": self.kept,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` returned."""
        self.received, self.produced, self.first = (
            int(state["received"]),
            int(state["produced"]),
            int(state["first"]),
        )
        self.kept = np.array(state["kept"], np.float32)
