"""The first generation's weights, which the model that ships began as. They lie in the repository
and are no part of the package."""

from pathlib import Path

import torch

from rtvc.errors import CheckpointError
from rtvc.models.streaming.assets import load_file
from rtvc.models.streaming.model import StreamingConverter

FIRST = Path(__file__).parents[3] / "checkpoints" / "first.safetensors"
NAME = "first"
"""What stands for that path in an `[[init]]`."""


def first_generation() -> StreamingConverter:
    """The model of those weights.

    Raises:
        CheckpointError: they are not there, or another model is.
    """
    if not FIRST.is_file():
        raise CheckpointError(
            f"expected the first generation's weights in {FIRST}, got nothing: train in a checkout"
            " of the repository, or begin without them (grow = false, taught = labels)"
        )
    with torch.inference_mode(False):
        model = load_file(FIRST)
    if not isinstance(model, StreamingConverter):
        raise CheckpointError(f"expected the first generation's weights, {FIRST} has the second's")
    return model
