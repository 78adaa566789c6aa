"""The model with its pitch network in float64, for plain torch on a CPU.

The harmonic source adds up the pitch network's output to a phase, and the last bits of float32
products hang on how many frames are multiplied at once. So a stream in float32 drifts from the
offline conversion by up to 2e-4 of its size, unheard; in float64 by less than 1e-6, for some four
percent of the time of a step. Compiled backends keep float32 and their own rounding.
"""

import copy
from typing import TypeVar

from torch import Tensor

from rtvc.layers.contract import State
from rtvc.models.streaming.model import StreamingConverter
from rtvc.models.streaming.pitch import PitchNet

T = TypeVar("T")


class ExactPitchNet(PitchNet):
    """`PitchNet` that takes float32 and computes in the type of its weights."""

    def logits(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """As `PitchNet.logits`."""
        return super().logits(x.to(self.out.weight.dtype), state)


def exact(converter: T) -> T:
    """A streaming converter that shares all weights but the pitch network's; any other converter
    comes back as it is."""
    if not isinstance(converter, StreamingConverter) or isinstance(converter.pitch, ExactPitchNet):
        return converter
    twin, pitch = copy.copy(converter), copy.deepcopy(converter.pitch).double()
    pitch.__class__ = ExactPitchNet
    twin._modules = dict(converter._modules)
    twin.pitch = pitch
    return twin
