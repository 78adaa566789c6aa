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


class RunningState(NamedTuple):
    """Decaying sums over the frames heard so far, all (B, 1)."""

    weight: Tensor  # float64, all three
    total: Tensor
    square: Tensor


class RunningMoments(nn.Module):
    """`(mean, deviation), state = moments(x, weight, state)`: slowly forgetting, with a prior that
    speech soon outweighs."""

    decay: Tensor

    def __init__(
        self,
        mean: float,
        deviation: float,
        memory: float = 800.0,
        mean_prior: float = 6.0,
        deviation_prior: float = 80.0,
    ) -> None:
        super().__init__()
        self.mean, self.deviation, self.mean_prior, self.deviation_prior = (
            mean,
            deviation,
            mean_prior,
            deviation_prior,
        )
        self.register_buffer(
            "decay", torch.tensor(1 - 1 / memory, dtype=torch.float64), persistent=False
        )

    def initial(self, batch: int) -> RunningState:
        """Nothing heard."""
        zeros = self.decay.new_zeros(batch, 1).double()
        return RunningState(zeros, zeros, zeros)

    def forward(
        self, x: Tensor, weight: Tensor, state: RunningState
    ) -> tuple[tuple[Tensor, Tensor], RunningState]:
        """x and weight (B, T) -> mean and deviation (B, T), float64, at every frame, that frame
        included.

        In float32 the mean would hang on how the stream is cut, and the phase of the voice with it.
        """
        weight, centred = weight.double(), x.double() - self.mean
        decay = self.decay.double()
        sums = torch.stack([weight, weight * centred, weight * centred.square()], 1)
        last = torch.stack(list(state), 1)
        parts = []
        for part in sums.split(SCAN, -1):
            frames = torch.arange(part.shape[-1], device=x.device)
            lag = (frames[:, None] - frames[None]).double()
            kernel = torch.where(lag >= 0, decay ** lag.clamp(min=0), torch.zeros_like(lag))
            running = part @ kernel.mT + last * decay ** (frames + 1)
            last = running[..., -1:]
            parts.append(running)
        count, total, square = torch.cat(parts, -1).unbind(1)
        mean = total / (count + self.mean_prior)
        raw = total / count.clamp(min=1e-3)
        variance = (square - count * raw.square()).clamp(
            min=0
        ) + self.deviation_prior * self.deviation**2
        deviation = torch.sqrt(variance / (count + self.deviation_prior))
        return (mean + self.mean, deviation), RunningState(*last.unbind(1))


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
        self.pitch = RunningMoments(PRIOR_F0, PRIOR_RANGE)
        self.energy = RunningMoments(PRIOR_ENERGY, PRIOR_ENERGY_RANGE)

    def initial(self, batch: int) -> ProsodyState:
        """Nothing heard of the source."""
        return ProsodyState(self.pitch.initial(batch), self.energy.initial(batch))

    def forward(
        self, log_f0: Tensor, voicing: Tensor, energy: Tensor, target: Tensor, state: ProsodyState
    ) -> tuple[tuple[Tensor, Tensor], ProsodyState]:
        """log_f0, voicing, energy (B, T) -> the mapped log F0 and energy (B, T)."""
        register, span, energy_span, shift, blend = (t[:, None] for t in target.unbind(1))
        (mean, deviation), pitch = self.pitch(log_f0, voicing, state.pitch)
        mapped = register + (log_f0 - mean) * (span / deviation).clamp(0.7, 1.4)
        pitched = (log_f0 + blend * (mapped - log_f0) + shift).to(log_f0.dtype)
        (mean, deviation), loud = self.energy(energy, voicing, state.energy)
        ratio = 1 + blend * ((energy_span / deviation).clamp(0.8, 1.25) - 1)
        return (pitched, (mean + (energy - mean) * ratio).to(energy.dtype)), ProsodyState(
            pitch, loud
        )
