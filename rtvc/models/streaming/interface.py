"""What every streaming converter offers: sessions, servers, builders and benchmarks are written against this alone."""

from typing import Protocol

from torch import Tensor

from rtvc.layers.contract import State


class Converter(Protocol):
    """A waveform-to-waveform voice converter under the state contract.

    Attributes:
        sample_rate: of input and output, in Hz.
        hop: every chunk holds a multiple of this many samples.
        latency: samples by which the output lags the input (mel window and look-ahead, without the chunk itself).
    """

    sample_rate: int
    hop: int
    latency: int

    def initial(self, batch: int) -> State:
        """The state before the first sample, for `batch` sessions."""
        ...

    def condition(self, acoustic: Tensor, prosodic: Tensor, *, pitch: float = 0.0, prosody: float = 1.0) -> Tensor:
        """Everything a step needs to know of a voice, computed once: (B, V), mixable by weighted sums only per style vector.

        Args:
            acoustic: (B, 128) timbre.
            prosodic: (B, 128) pitch register and range, energy, rhythm.
            pitch: semitones added to the pitch.
            prosody: 0 keeps the source's register and range, 1 takes the voice's.
        """
        ...

    def __call__(self, x: Tensor, voice: Tensor, state: State) -> tuple[Tensor, State]:
        """x (B, 1, N) waveform, voice (B, V) from `condition` -> y (B, 1, N) waveform and the next state."""
        ...
