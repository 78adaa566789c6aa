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


class Manner(NamedTuple):
    """What `ProsodyHead` predicts of a voice, and of which rows it is known."""

    targets: Tensor
    """(B, 3): mean and deviation of log F0, deviation of log energy, over the voiced frames."""
    known: Tensor
    """(B,), 0 or 1."""


def manner(log_f0: Tensor, voiced: Tensor, energy: Tensor) -> Manner:
    """log_f0, voiced and energy (B, T) of reference recordings -> their prosody."""
    count = voiced.sum(1).clamp_min(1)

    def moments(x: Tensor) -> tuple[Tensor, Tensor]:
        mean = (x * voiced).sum(1) / count
        return mean, (((x - mean[:, None]).square() * voiced).sum(1) / count + 1e-6).sqrt()

    register, span = moments(log_f0)
    _, dynamics = moments(energy)
    return Manner(torch.stack([register, span, dynamics], 1), (voiced.sum(1) > MIN_VOICED).float())
