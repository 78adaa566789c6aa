"""What a test streams: noise, and a voice."""

import numpy as np
import torch

from rtvc.voices.voice import Voice


def noise(samples: int) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal(samples) * 0.1).astype(np.float32)


def voice(value: float = 0.3) -> Voice:
    return Voice(torch.full((128,), value), torch.full((128,), value))
