"""A model on its way to another process of the same machine: its class by name, its sizes as JSON,
its weights as safetensors. Nothing that arrives is unpickled."""

import importlib
import json
from typing import Any

import torch
from pydantic import BaseModel
from torch import nn

from rtvc.errors import EngineError
from rtvc.models.streaming.interface import Converter


def packed(converter: Converter) -> tuple[dict[str, Any], bytes]:
    """What `unpacked` needs: a description that is JSON, and the weights.

    Raises:
        EngineError: its class cannot be named, or it does not say its sizes as `config`.
    """
    from safetensors.torch import save

    kind, config = type(converter), getattr(converter, "config", None)
    name = f"{kind.__module__}:{kind.__qualname__}"
    if not isinstance(converter, nn.Module) or "<locals>" in name:
        raise EngineError(f"expected a model of a class in a module, got {name}: move it there")
    if not isinstance(config, BaseModel):
        raise EngineError(f"expected {name} to have its sizes as `config`, got {config!r}")
    sizes = type(config)
    description = {
        "class": name,
        "sizes": f"{sizes.__module__}:{sizes.__qualname__}",
        "config": json.loads(config.model_dump_json()),
        "lookahead": getattr(converter, "lookahead", None),
    }
    state = {key: tensor.cpu().contiguous() for key, tensor in converter.state_dict().items()}
    return description, save(state)


def unpacked(description: dict[str, Any], weights: bytes) -> Converter:
    """The model, ready to convert."""
    from safetensors.torch import load

    with torch.inference_mode(False):
        model = _named(description["class"])(
            _named(description["sizes"]).model_validate(description["config"])
        )
        model.load_state_dict(load(weights))
        if description["lookahead"] is not None:
            model.set_lookahead(description["lookahead"])
        converter: Converter = model.eval().requires_grad_(False)
    return converter


def _named(name: str) -> Any:
    module, _, inner = name.partition(":")
    named: Any = importlib.import_module(module)
    for part in inner.split("."):
        named = getattr(named, part)
    return named
