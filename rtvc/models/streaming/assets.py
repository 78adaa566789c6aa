"""The shipped weights: float16 safetensors with their configuration in the header."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import ValidationError

from rtvc.errors import CheckpointError
from rtvc.files import write
from rtvc.models.streaming.model import StreamingConfig, StreamingConverter

DEFAULT = Path(__file__).parents[2] / "assets" / "stream.safetensors"
FORMAT = "rtvc-streaming"


def save_file(model: StreamingConverter, path: str | os.PathLike[str], facts: Mapping[str, str] | None = None) -> Path:
    """Writes weights in float16, at once and whole; `facts` (step, commit, …) go into the header."""
    from safetensors.torch import save

    path = Path(path)
    tensors = {name: t.half() if t.is_floating_point() else t for name, t in model.state_dict().items()}
    metadata = {"format": FORMAT, "config": model.config.model_dump_json(), **(facts or {})}
    write(path, save({name: t.contiguous() for name, t in tensors.items()}, metadata))
    return path


def load_file(path: str | os.PathLike[str]) -> StreamingConverter:
    """Reads what `save_file` wrote, as float32, ready to convert.

    Raises:
        CheckpointError: no such file, or one that is truncated, foreign, or does not fit its configuration.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} is not there, weights of a streaming model were wanted: check the path")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as weights ({error}): fetch it again, it may be truncated") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} is a safetensors file but no streaming model: weights that `rtvc train stream` exported were wanted")
    try:
        model = StreamingConverter(StreamingConfig(**json.loads(metadata["config"])))
    except (KeyError, ValueError, ValidationError) as error:
        raise CheckpointError(f"{path} carries a configuration that this rtvc does not know ({error}): update rtvc") from error
    wanted = model.state_dict()
    missing, unexpected = sorted(set(wanted) - set(tensors)), sorted(set(tensors) - set(wanted))
    wrong = [
        f"{n} {tuple(tensors[n].shape)} for {tuple(t.shape)}" for n, t in wanted.items() if n in tensors and tensors[n].shape != t.shape
    ]
    if missing or unexpected or wrong:
        raise CheckpointError(
            f"{path} does not fit its configuration: missing {missing}, unexpected {unexpected}, of another shape {wrong}"
        )
    model.load_state_dict(tensors)
    return model.eval()


def load_default() -> StreamingConverter:
    """The model that rtvc ships."""
    with torch.inference_mode(False):
        return load_file(DEFAULT)
