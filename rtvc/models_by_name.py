"""Models by name or by file: `load`."""

import importlib
from pathlib import Path
from typing import Any

import torch

from rtvc import checks
from rtvc.audio.io import StrPath
from rtvc.converter import VoiceConverter
from rtvc.errors import ConfigError
from rtvc.files import kind
from rtvc.stream_model import StreamModel

MODELS = {"stream": ("rtvc.models.streaming.assets", "load_default")}
"""Shipped models by name: the module, and its function that returns one."""
FILES = {
    ".safetensors": ("rtvc.models.streaming.assets", "load_file"),
    ".pth": ("rtvc.models.checkpoints", "load_converter"),
}
"""Files of weights by suffix: of our own training, and of the papers' authors."""
BARE = {"stream", ".safetensors"}
"""Those that give a streaming converter, which `StreamModel` makes a model of; files of it may have
a latency dial."""
DEFAULT = "stream"


def load(
    name_or_path: StrPath | None = None, device: str = "cpu", lookahead: float | None = None
) -> VoiceConverter:
    """Loads a model.

    Args:
        name_or_path: `stream` (the default), or a file of weights: our own `.safetensors`, or a
            `.pth` checkpoint of the authors of StyleTTS-VC or StyleTTS 2.
        device: `cpu`, `cuda`, `cuda:1`, …
        lookahead: milliseconds that a model with a latency dial waits for; None: its usual ones.

    Raises:
        ConfigError: no such model or device, or a look-ahead that the model has not.
        CheckpointError: weights that are missing, truncated, foreign or hostile.
    """
    check_device(device)
    name = DEFAULT if name_or_path is None else checks.path(name_or_path, "the model")
    suffix = Path(name).suffix
    milliseconds = None if lookahead is None else checks.real(lookahead)
    if lookahead is not None and milliseconds is None:
        raise ConfigError(
            f"expected milliseconds as the look-ahead, got {checks.what(lookahead)}: pass a number"
        )
    fixed = set(MODELS) | set(FILES)
    if milliseconds is not None and {name, suffix} & (fixed - BARE):
        raise ConfigError(
            f"got a look-ahead of {milliseconds:g} ms for a model with one latency: leave it out"
        )
    setting = () if milliseconds is None else (milliseconds,)
    if name in MODELS:
        loaded = call(MODELS[name], *setting)
    elif suffix in FILES:
        if kind(name) != "file":
            raise ConfigError(
                f"expected a file of weights, got {name}, which is not there: check the path"
            )
        loaded = call(FILES[suffix], Path(name), *setting)
    else:
        raise ConfigError(
            f"there is no model {name!r}: name {' or '.join(MODELS)}, or a file ending in"
            f" {' or '.join(FILES)}"
        )
    if isinstance(loaded, torch.nn.Module):
        loaded = loaded.to(device).eval().requires_grad_(False)
    bare = name in BARE or (name not in MODELS and suffix in BARE)
    return VoiceConverter(StreamModel(loaded) if bare else loaded, device)


def call(entry: tuple[str, str], *arguments: Any) -> Any:
    """Calls a function of a module that is imported only now."""
    module, function = entry
    return getattr(importlib.import_module(module), function)(*arguments)


def check_device(device: str) -> None:
    """Raises a `ConfigError` unless torch can run on the device here."""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"the device {device!r} cannot be used here ({str(error).splitlines()[0]}): use 'cpu'"
        ) from error
