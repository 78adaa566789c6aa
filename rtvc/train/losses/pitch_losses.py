"""What a pitch network is trained by."""

import torch
import torch.nn.functional as F
from torch import Tensor

from rtvc.models.streaming.pitch import SEMITONE
from rtvc.train.losses.shares import share


def pitch_losses(
    centres: Tensor, logits: Tensor, log_f0: Tensor, voiced: Tensor, known: Tensor
) -> dict[str, Tensor]:
    """Cross entropies of F0, against a bell of one bin's width around the truth, and of voicing.

    The share of voiced frames within a semitone, and of right voicing, are metrics (`share`).

    Args:
        centres: (K,) log F0 of the bins.
        logits: (B, T, K + 1), the voicing's last.
        log_f0: (B, T) in log Hz.
        voiced: (B, T), 0 to 1; F0 counts by it.
        known: (B, T) 0 or 1: whether the voicing is.
    """
    logits, width = logits.float(), centres[1] - centres[0]
    inside = (log_f0 > centres[0] - width) & (log_f0 < centres[-1] + width)
    counted = voiced * inside
    bell = torch.exp(-0.5 * ((centres - log_f0[..., None]) / width).square())
    bell = bell / bell.sum(-1, keepdim=True).clamp_min(1e-6)
    bins = -(bell * F.log_softmax(logits[..., :-1], -1)).sum(-1)
    voicing = F.binary_cross_entropy_with_logits(logits[..., -1], voiced, reduction="none")
    peak = centres[logits[..., :-1].argmax(-1)]
    return {
        "f0": (bins * counted).sum() / counted.sum().clamp_min(1),
        "voicing": (voicing * known).sum() / known.sum().clamp_min(1),
        "metric/within_a_semitone": share((peak - log_f0).abs() < SEMITONE, counted),
        "metric/voicing_right": share((logits[..., -1] > 0) == (voiced > 0.5), known),
    }
