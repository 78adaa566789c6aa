"""The shipped weights: float16 safetensors with their configuration in the header."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import ValidationError

from rtvc.errors import CheckpointError
from rtvc.files import write
from rtvc.models.loading import check_fit, filled, outlined
from rtvc.models.streaming.model import StreamingConfig, StreamingConverter
from rtvc.printable import first_problem
from rtvc.tensorfile import opened

DEFAULT = Path(__file__).parents[2] / "assets" / "stream.safetensors"
FORMAT = "rtvc-streaming"


def save_file(
    model: StreamingConverter, path: str | os.PathLike[str], facts: Mapping[str, str] | None = None
) -> Path:
    """Writes weights in float16, at once and whole; `facts` (step, commit, …) go into the
    header."""
    from safetensors.torch import save

    path = Path(path)
    tensors = {
        name: t.half() if t.is_floating_point() else t for name, t in model.state_dict().items()
    }
    metadata = {"format": FORMAT, "config": model.config.model_dump_json(), **(facts or {})}
    write(path, save({name: t.contiguous() for name, t in tensors.items()}, metadata))
    return path


def load_file(path: str | os.PathLike[str]) -> StreamingConverter:
    """Reads what `save_file` wrote, as float32, ready to convert.

    The configuration is bounded, the model outlined, and the names, shapes and types of the file's
    tensors compared with it, before a tensor is read.

    Raises:
        CheckpointError: no such file, or one that is truncated, foreign, does not fit its
            configuration, or holds NaN.
    """
    if not Path(path).is_file():
        raise CheckpointError(
            f"{path} is not there, weights of a streaming model were wanted: check the path"
        )
    with opened(path) as file:
        if file.metadata.get("format") != FORMAT:
            raise CheckpointError(
                f"{path} is a safetensors file but no streaming model: weights that `rtvc train"
                " stream` exported were wanted"
            )
        config = read_config(file.metadata.get("config", ""), str(path))
        model = outlined(lambda: StreamingConverter(config), f"the configuration of {path}")
        check_fit(model, file.described, str(path))
        return filled(model, file.read(), str(path))


def read_config(text: str, where: str) -> StreamingConfig:
    """The sizes that a header gives, within what any streaming model has; `where` names the file in
    the error.

    Raises:
        CheckpointError: naming the first size that is not.
    """
    try:
        return StreamingConfig.model_validate_json(text)
    except ValidationError as error:
        raise CheckpointError(
            f"{where} carries a configuration that this rtvc does not know"
            f" ({first_problem(error)}): update rtvc, or get the file again"
        ) from error


def load_default() -> StreamingConverter:
    """The model that rtvc ships."""
    with torch.inference_mode(False):
        return load_file(DEFAULT)
