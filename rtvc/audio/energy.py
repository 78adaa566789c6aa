"""Energy N of a mel spectrogram: log of the L2 norm over bands of the amplitude (the authors'
`log_norm`)."""

import torch
from torch import Tensor

from rtvc.audio.mel import LOG_MEAN, LOG_STD


def energy(mel: Tensor) -> Tensor:
    """mel (B, 80, T) normalised log-mel -> N (B, 1, T) = log ||exp(4 mel - 4)|| over the bands."""
    return torch.logsumexp(2 * (mel * LOG_STD + LOG_MEAN), 1, keepdim=True) / 2
