"""Where what a server sent back belongs on the time line of the microphone."""

from collections import deque

from rtvc.audio.samples import Samples
from rtvc.engine.callback.placing import Stretch
from rtvc.engine.protocol.streams import Audio

REMEMBERED = 256
"""Blocks that were left out, and whose output has not come yet."""


class RemotePlacing:
    """See `rtvc.engine.callback.placing.Placing`, before a server.

    A server gives a sample for every sample, and says where it dropped some; how many shows in the
    times that its frames bear. What never went out is known here.

    Args:
        rate_in: of the microphone, in Hz.
        rate_out: of what comes back.
    """

    def __init__(self, rate_in: int, rate_out: int) -> None:
        self._share, self._rate = rate_out / rate_in, rate_out
        self._input = self._sent = 0
        self._late = 0.0
        self._left_out: deque[tuple[int, int]] = deque(maxlen=REMEMBERED)
        self._at = 0  # position of the next output sample, if nothing was left out before it
        self._missing = 0  # output samples that were left out so far, on this side
        self._next: float | None = None  # time of the next output sample, if nothing was dropped

    def offered(self, count: int, taken: bool, late: float) -> None:
        """A block went out, or did not; it was `late` seconds older than what was said."""
        self._late = late
        if taken:
            self._sent += count
        else:
            self._left_out.append((self._sent, count))

    def input(self, samples: Samples) -> Stretch:
        """What was said, (N,)."""
        self._input += len(samples)
        return Stretch(self._input - len(samples), samples)

    def output(self, audio: Audio) -> list[Stretch]:
        """A frame of the server, cut where something was left out."""
        if audio.dropped and self._next is not None:
            self._at += max(0, round((audio.timestamp / 1e6 - self._next) * self._rate))
        stretches, samples = list[Stretch](), audio.samples
        self._next = audio.timestamp / 1e6 + len(samples) / self._rate
        shift = round(self._late * self._rate)
        while self._left_out:
            position, count = self._left_out[0]
            before = round(position * self._share) - self._at
            if before > len(samples):
                break
            before = max(0, before)
            stretches.append(Stretch(self._at + self._missing - shift, samples[:before]))
            self._at += before
            samples = samples[before:]
            self._missing += round(count * self._share)
            self._left_out.popleft()
        stretches.append(Stretch(self._at + self._missing - shift, samples))
        self._at += len(samples)
        return stretches
