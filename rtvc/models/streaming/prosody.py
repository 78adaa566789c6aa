"""Maps the source's pitch and energy into the target's register and range, by running statistics
(StreamVC, section 3.3)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

SCAN = 32
"""Frames that the running statistics advance by in one matrix product."""

PRIOR_F0, PRIOR_RANGE = 5.0, 0.2
"""Mean and deviation of log F0 believed before anything is heard: 148 Hz, 3.5 semitones."""
PRIOR_ENERGY, PRIOR_ENERGY_RANGE = 0.0, 1.5
"""The same of the log energy."""
DECLINATION = 0.1
"""How far above the mean of log F0 people begin to speak: .11 on average, .09 in the middle, of 120
recordings of as many speakers; speech then declines."""
MOST_HEARD = 10_000.0
"""Voiced frames that are counted; by then the first ones have long lost their weight."""


class RunningState(NamedTuple):
    """Decaying sums over the frames heard so far, and how many were voiced, all (B, 1)."""

    weight: Tensor  # float64, all of them
    total: Tensor
    square: Tensor
    first_weight: Tensor
    first_total: Tensor
    heard: Tensor


class RunningMoments(nn.Module):
    """`(mean, deviation), state = moments(x, weight, state)`: slowly forgetting, with a prior that
    speech soon outweighs.

    Neighbouring frames say nearly the same, so that a mean over all frames heard follows the melody
    of the first second and takes it out of what is heard relative to it. Where x wanders like a
    first-order process, the best linear estimate of its mean gives the first frame the weight of as
    many later ones as it takes to forget (the Gauss-Markov theorem with those correlations):
    `onset` of them, spread over the first `ONSET` frames so that none decides alone.

    Args:
        mean: believed before anything is heard.
        deviation: the same.
        memory: voiced frames after which one has lost 1 - 1/e of its weight; silence forgets
            nothing.
        mean_prior: frames that the believed mean counts as.
        deviation_prior: frames that the believed deviation counts as.
        onset: how much more than a later frame the first one counts.
        above: how far above its mean x begins.
    """

    ONSET = 16.0
    like: Tensor

    def __init__(
        self,
        mean: float,
        deviation: float,
        memory: float = 800.0,
        mean_prior: float = 6.0,
        deviation_prior: float = 80.0,
        onset: float = 0.0,
        above: float = 0.0,
    ) -> None:
        super().__init__()
        self.mean, self.deviation, self.memory = mean, deviation, memory
        self.mean_prior, self.deviation_prior = mean_prior, deviation_prior
        self.onset, self.above = onset, above
        zero = torch.zeros((), dtype=torch.float64)
        self.register_buffer("like", zero, persistent=False)

    def initial(self, batch: int) -> RunningState:
        """Nothing heard."""
        zeros = self.like.new_zeros(batch, 1).double()
        return RunningState(*[zeros] * len(RunningState._fields))

    def forward(
        self, x: Tensor, weight: Tensor, state: RunningState
    ) -> tuple[tuple[Tensor, Tensor], RunningState]:
        """x and weight (B, T) -> mean and deviation (B, T), float64, at every frame, that frame
        included.

        In float32 the mean would hang on how the stream is cut, and the phase of the voice with it.
        """
        weight, centred = weight.double(), x.double() - self.mean
        last, heard = torch.stack(state[:-1], 1), state.heard  # (B, 5, 1) and (B, 1)
        parts = []
        for w, c in zip(weight.split(SCAN, -1), centred.split(SCAN, -1), strict=True):
            frames = torch.arange(w.shape[-1], device=x.device)
            before = frames[:, None] >= frames[None]  # frame s counts at frame t
            passed = w @ before.mT.double()  # (B, T) voiced frames of this part, up to each
            first = w * self.onset * torch.exp((w - passed - heard) / self.ONSET)
            sums = torch.stack([w, w * c, w * c.square(), first, first * (c - self.above)], 1)
            lag = passed[:, :, None] - passed[:, None]
            kernel = torch.exp(-lag.clamp(min=0) / self.memory) * before
            running = sums @ kernel.mT + last * torch.exp(-passed / self.memory)[:, None]
            last, heard = running[..., -1:], (heard + passed[:, -1:]).clamp(max=MOST_HEARD)
            parts.append(running)
        count, total, square, first_count, first_total = torch.cat(parts, -1).unbind(1)
        mean = (total + first_total) / (count + first_count + self.mean_prior)
        raw = total / count.clamp(min=1e-3)
        variance = (square - count * raw.square()).clamp(
            min=0
        ) + self.deviation_prior * self.deviation**2
        deviation = torch.sqrt(variance / (count + self.deviation_prior))
        return (mean + self.mean, deviation), RunningState._make([*last.unbind(1), heard])


class ProsodyState(NamedTuple):
    """The running statistics of the source."""

    pitch: RunningState
    energy: RunningState


class Prosody(nn.Module):
    """`(log_f0, energy), state = prosody(log_f0, voicing, energy, target, state)`.

    `target` (B, 5) holds the voice's mean and deviation of log F0, its deviation of log energy, the
    pitch shift in log Hz, and the blend: 0 keeps the source's register and range, 1 takes the
    voice's.
    """

    TARGETS = 5

    def __init__(self) -> None:
        super().__init__()
        self.pitch = RunningMoments(
            PRIOR_F0, PRIOR_RANGE, mean_prior=8.0, onset=8.0, above=DECLINATION
        )
        self.energy = RunningMoments(PRIOR_ENERGY, PRIOR_ENERGY_RANGE)

    def initial(self, batch: int) -> ProsodyState:
        """Nothing heard of the source."""
        return ProsodyState(self.pitch.initial(batch), self.energy.initial(batch))

    def forward(
        self, log_f0: Tensor, voicing: Tensor, energy: Tensor, target: Tensor, state: ProsodyState
    ) -> tuple[tuple[Tensor, Tensor], ProsodyState]:
        """log_f0, voicing, energy (B, T) -> the mapped log F0 and energy (B, T)."""
        register, span, energy_span, shift, blend = (t[:, None] for t in target.unbind(1))
        # A frame with more noise than tone says little about anybody's register.
        tone = (2 * voicing - 1).clamp(min=0)
        (mean, deviation), pitch = self.pitch(log_f0, tone, state.pitch)
        mapped = register + (log_f0 - mean) * (span / deviation).clamp(0.7, 1.4)
        pitched = (log_f0 + blend * (mapped - log_f0) + shift).to(log_f0.dtype)
        (mean, deviation), loud = self.energy(energy, voicing, state.energy)
        ratio = 1 + blend * ((energy_span / deviation).clamp(0.8, 1.25) - 1)
        return (pitched, (mean + (energy - mean) * ratio).to(energy.dtype)), ProsodyState(
            pitch, loud
        )
