"""Causal stand-ins for AdaIN's instance statistics (StyleTTS-VC, section 3.1; the comparison is in
docs/normalisation.md).

AdaIN normalises each channel by its mean and deviation over the whole utterance, which no stream
can know. All stand-ins end in the same style-driven scale and shift; they differ in what is taken
out before it. `frame`: mean and deviation over the channels of each frame (adaptive layer norm, as
in MeanVC and X-VC). `film`: nothing (as in StreamVC). `predicted`: a mean and deviation a channel
that the style itself supplies.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from rtvc.kernels.block_step import Norm

Statistics = Literal["frame", "film", "predicted"]
EPSILON = 1e-5


class StyleNorm(NamedTuple):
    """A style as the arguments of `rtvc.kernels.block_step` that have these names."""

    norm: Norm
    scale: Tensor  # (B, C)
    shift: Tensor  # (B, C)
    plus_one: bool


def style_size(channels: int, statistics: Statistics) -> int:
    """Numbers of style that a norm takes: scale and shift, and for `predicted` a log-deviation and
    a mean as well."""
    return channels * (4 if statistics == "predicted" else 2)


def style_norm(style: Tensor, statistics: Statistics) -> StyleNorm:
    """The norm that a style (B, style_size) asks for.

    `predicted` is (x - mean) / deviation * (1 + scale) + shift. All of it is known before x is: it
    becomes one scale and one shift.
    """
    if statistics != "predicted":
        scale, shift = style.chunk(2, 1)
        return StyleNorm("frame" if statistics == "frame" else "affine", scale, shift, True)
    scale, shift, deviation, mean = style.chunk(4, 1)
    gain = (1 + scale) * torch.exp(-deviation)
    return StyleNorm("affine", gain, shift - mean * gain, False)
