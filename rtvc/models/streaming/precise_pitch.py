"""The model with its pitch network in float64, for plain torch on a CPU.

The harmonic source adds up the pitch network's output to a phase, and the last bits of float32
products hang on how many frames are multiplied at once. So a stream in float32 drifts from the
offline conversion by up to 2e-4 of its size, unheard; in float64 by less than 1e-6, for some four
percent of the time of a step. Compiled backends keep float32 and their own rounding.
"""

import copy
from typing import TypeVar

import torch

from rtvc.models.streaming.dial import DialConverter
from rtvc.models.streaming.model import StreamingConverter

T = TypeVar("T")


def exact(converter: T) -> T:
    """A streaming converter that shares all weights but the pitch network's; any other converter
    comes back as it is."""
    if not isinstance(converter, StreamingConverter | DialConverter):
        return converter
    if converter.pitch.out.weight.dtype == torch.float64:
        return converter
    own = {id(tensor) for tensor in (*converter.pitch.parameters(), *converter.pitch.buffers())}
    everything = (*converter.parameters(), *converter.buffers())
    # What deepcopy finds in its memo it takes as copied: these tensors stay shared.
    twin = copy.deepcopy(converter, {id(t): t for t in everything if id(t) not in own})
    twin.pitch.double()
    return twin
