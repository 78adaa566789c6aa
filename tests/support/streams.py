"""A voice to stream with."""

import torch

from rtvc.voices.voice import Voice


def voice(value: float = 0.3) -> Voice:
    return Voice(torch.full((128,), value), torch.full((128,), value))
