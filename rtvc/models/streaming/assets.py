"""Weights of streaming models in a file: safetensors with their configuration in the header."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from rtvc.errors import CheckpointError, ConfigError
from rtvc.files import write
from rtvc.models.loading import check_fit, filled, outlined
from rtvc.models.streaming.dial import DialConfig, DialConverter
from rtvc.models.streaming.eight_bits import logical, packed, unpacked
from rtvc.models.streaming.model import StreamingConfig, StreamingConverter
from rtvc.printable import first_problem, printable
from rtvc.tensorfile import opened

DEFAULT = Path(__file__).parents[2] / "assets" / "stream.safetensors"
StreamingModel = StreamingConverter | DialConverter
"""Either generation."""


@dataclass(frozen=True)
class Format:
    """A kind of streaming model as files know it.

    Attributes:
        name: in the header.
        config: its sizes.
        build: makes a model of them.
        pack: makes a file's tensors of a state dict.
    """

    name: str
    config: type[StreamingConfig] | type[DialConfig]
    build: Callable[[Any], StreamingModel]
    pack: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


def halves(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict in float16."""
    return {
        name: (t.half() if t.is_floating_point() else t).contiguous() for name, t in state.items()
    }


STREAMING = Format("rtvc-streaming", StreamingConfig, StreamingConverter, halves)
DIAL = Format("rtvc-dial", DialConfig, DialConverter, packed)
FORMATS = {form.name: form for form in (STREAMING, DIAL)}


def save_file(
    model: StreamingModel, path: str | os.PathLike[str], facts: Mapping[str, str] | None = None
) -> Path:
    """Writes weights, at once and whole; `facts` (step, commit, …) go into the header."""
    from safetensors.torch import save

    path = Path(path)
    form = DIAL if isinstance(model, DialConverter) else STREAMING
    metadata = {"format": form.name, "config": model.config.model_dump_json(), **(facts or {})}
    write(path, save(form.pack(model.state_dict()), metadata))
    return path


def load_file(path: str | os.PathLike[str], lookahead: float | None = None) -> StreamingModel:
    """Reads what `save_file` wrote, as float32, ready to convert.

    The configuration is bounded, the model outlined, and the names, shapes and types of the file's
    tensors compared with it, before a tensor is read.

    Args:
        path: of the file.
        lookahead: milliseconds that a model with a latency dial waits for, None: its usual ones.

    Raises:
        CheckpointError: no such file, or one that is truncated, foreign, does not fit its
            configuration, or holds NaN.
        ConfigError: the model has no such look-ahead.
    """
    if not Path(path).is_file():
        raise CheckpointError(
            f"expected weights of a streaming model, got {path}, which is not there: check the path"
        )
    with opened(path) as file:
        form = FORMATS.get(file.metadata.get("format", ""))
        if form is None:
            raise CheckpointError(
                f"expected weights that `rtvc train export` wrote, {path} is a safetensors file but"
                " no streaming model"
            )
        config = read_config(file.metadata.get("config", ""), str(path), form)
        model = outlined(lambda: form.build(config), f"the configuration of {path}")
        check_fit(model, logical(file.described), str(path))
        return set_lookahead(filled(model, unpacked(file.read()), str(path)), lookahead)


def set_lookahead(model: StreamingModel, milliseconds: float | None) -> StreamingModel:
    """The model with its latency dial at so many milliseconds; None leaves it where it is.

    Raises:
        ConfigError: the model has no dial, or not this setting.
    """
    if milliseconds is None:
        return model
    frame = 1000 * model.hop / model.sample_rate
    settings = model.encoder.lookaheads if isinstance(model, DialConverter) else ()
    for frames in settings:
        if abs(frames * frame - milliseconds) < 0.01 and isinstance(model, DialConverter):
            model.set_lookahead(frames)
            return model
    choice = " or ".join(f"{frames * frame:g}" for frames in settings)
    raise ConfigError(
        f"expected a look-ahead of {choice} ms, got {milliseconds:g}: choose one of these"
        if settings
        else f"got a look-ahead of {milliseconds:g} ms for a model with one latency: leave it out"
    )


def read_config(text: str, where: str, form: Format) -> StreamingConfig | DialConfig:
    """The sizes that a header gives, within what any model of the kind has; `where` names the file
    in the error.

    Raises:
        CheckpointError: naming the first size that is not.
    """
    try:
        return form.config.model_validate_json(text)
    except ValidationError as error:
        raise CheckpointError(
            f"{printable(where)} carries a configuration that this rtvc does not know"
            f" ({first_problem(error)}): update rtvc, or get the file again"
        ) from error


def load_default(lookahead: float | None = None) -> DialConverter:
    """The model that rtvc ships, with its dial at so many milliseconds; see `load_file`."""
    with torch.inference_mode(False):
        model = load_file(DEFAULT, lookahead)
    assert isinstance(model, DialConverter)
    return model
