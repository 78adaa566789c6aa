"""Where the output of a conversion belongs on the time line of its input, sample by sample."""

from dataclasses import dataclass

from rtvc.audio.samples import Samples
from rtvc.engine.streams.chunker import Chunker


@dataclass(frozen=True)
class Stretch:
    """Samples (N,) whose first one is number `at` of the stream, what was left out counted."""

    at: int
    samples: Samples

    @property
    def end(self) -> int:
        """The number of the sample after the last one."""
        return self.at + len(self.samples)


class Placing:
    """Follows a line that converts: output sample k belongs to input sample k * rate_in /
    rate_out, and what was dropped keeps its place.

    Attributes:
        late: seconds by which what the line is given is older than what was said, as a noise
            suppressor in front of it makes it.
    """

    def __init__(self) -> None:
        self.late = 0.0
        self._dropped = 0  # samples at the line's rate whose gaps were left already
        self._seen = 0  # position after the last of them

    def input(self, chunker: Chunker, samples: Samples) -> Stretch:
        """The input (N,) that the line was given just now."""
        return Stretch(chunker.entry.received - len(samples), samples)

    def output(self, chunker: Chunker, samples: Samples) -> list[Stretch]:
        """The output (N,) that it gave just now, cut where something was left out."""
        rate = chunker.exit.rate_out
        share, shift = rate / chunker.rate, round(self.late * rate)
        stretches = list[Stretch]()
        while True:
            at = chunker.delivered - len(samples) + round(self._dropped * share)
            drops = chunker.backlog.drops
            drop = next((drop for drop in drops if drop.position >= self._seen), None)
            before = len(samples) if drop is None else max(0, round(drop.position * share) - at)
            if drop is None or before > len(samples):
                return [*stretches, Stretch(at - shift, samples)]
            stretches.append(Stretch(at - shift, samples[:before]))
            samples = samples[before:]
            self._dropped += drop.samples
            self._seen = drop.position + drop.samples
