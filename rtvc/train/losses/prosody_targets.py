"""What the training of the streaming decoder compares besides spectra."""

from typing import NamedTuple

import torch
from torch import Tensor

from rtvc.audio.spectral import within

MIN_VOICED = 20
"""Voiced frames below which a reference tells nothing of prosody."""


def low_passed(wave: Tensor, cutoff: Tensor) -> Tensor:
    """wave (B, N) without what lies above cutoff (B,) in Hz, so that a judge cannot tell recordings
    by their bandwidth."""
    spectrum = torch.fft.rfft(wave.float())
    kept: Tensor = torch.fft.irfft(
        spectrum * within(cutoff, wave.shape[-1])[..., 0][:, : spectrum.shape[-1]], wave.shape[-1]
    )
    return kept


class Prosody(NamedTuple):
    """What `ProsodyHead` predicts of a voice, and of which rows it is known."""

    targets: Tensor
    """(B, 3): mean and deviation of log F0, deviation of log energy, over the voiced frames."""
    known: Tensor
    """(B,), 0 or 1."""

    def loss(self, predicted: Tensor) -> Tensor:
        """Mean absolute difference of what is predicted, (B, 3); 0 for rows that are not known."""
        return ((predicted - self.targets).abs() * self.known[:, None]).mean()


def prosody_of(log_f0: Tensor, voiced: Tensor, energy: Tensor) -> Prosody:
    """log_f0, voiced and energy (B, T) of reference recordings -> their prosody."""
    count = voiced.sum(1).clamp_min(1)

    def moments(x: Tensor) -> tuple[Tensor, Tensor]:
        mean = (x * voiced).sum(1) / count
        return mean, (((x - mean[:, None]).square() * voiced).sum(1) / count + 1e-6).sqrt()

    register, span = moments(log_f0)
    _, dynamics = moments(energy)
    known = (voiced.sum(1) > MIN_VOICED).float()
    return Prosody(torch.stack([register, span, dynamics], 1), known)


def in_next_register(log_f0: Tensor, prosody: Prosody) -> Tensor:
    """Melodies (B, T) moved to the register of the next row's reference, where both are known."""
    known = (prosody.known * prosody.known.roll(1, 0))[:, None]
    register = prosody.targets[:, :1]
    return log_f0 + (register.roll(1, 0) - register) * known
