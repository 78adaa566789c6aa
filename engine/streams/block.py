"""What a caller may push: blocks of mono samples, asked at every door of a stream."""

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from rtvc import checks
from rtvc.audio.check import LOUDEST
from rtvc.audio.samples import Samples
from rtvc.errors import AudioError


def check_block(block: ArrayLike) -> Samples:
    """A block of mono samples as (N,) float32.

    Raises:
        AudioError: for another shape, whole numbers, or values that are not finite or were never
            scaled to [-1, 1].
    """
    try:
        samples = np.asarray(block.detach().cpu() if isinstance(block, Tensor) else block)
    except (TypeError, ValueError, RuntimeError) as error:
        raise AudioError(
            f"expected a block of mono samples (N,), got {checks.what(block)}: pass an array of"
            " floats"
        ) from error
    if samples.ndim != 1:
        raise AudioError(
            f"expected a block of mono samples (N,), got one of the shape {samples.shape}: mix the"
            " channels down first"
        )
    if samples.dtype.kind != "f":
        raise AudioError(
            f"expected a block of floats in [-1, 1], got one of {samples.dtype}: divide integers by"
            " their full scale"
        )
    peak = np.abs(samples).max(initial=0.0)
    if not np.isfinite(peak):
        raise AudioError(
            "expected finite samples, got a block with NaN or infinity: find where the capture went"
            " wrong"
        )
    if peak > LOUDEST:
        raise AudioError(
            f"expected samples from -1 to 1, got a block that reaches {peak:.6g}: divide 16-bit"
            " integers by 32768"
        )
    return samples.astype(np.float32, copy=False)
