"""Golden vectors of the authors' public code: `../shared/parity`, beside the checkout."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)

PARAMETERS = [
    4_529_408,
    91_314,
    5_606_400,
    13_845_440,
    13_835_180,
    32_719_026,
    5_248_067,
    7_865_252,
]
"""Of the paper's components, in the order of its table."""

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "parity"
needs_vectors = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="the golden vectors (../shared/parity) are not on this machine"
)


def components() -> dict[str, Any]:
    """What the authors' state dicts hold, by component."""
    loaded: dict[str, Any] = json.loads((FOLDER / "components.json").read_text())
    return loaded


def published_shapes(name: str) -> dict[str, list[int]]:
    """Name and shape of every tensor of a component."""
    return dict(components()[name]["state_dict"])


def rule() -> ModuleType:
    """The rule that the golden weights follow."""
    spec = importlib.util.spec_from_file_location("parity_fill", FOLDER / "fill.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def leading_vectors(weight: Tensor) -> tuple[Tensor, Tensor]:
    """What the rule's `spectral_vectors` gives, from the small Gram matrix: ten times faster."""
    matrix = weight.flatten(1).double()
    u = torch.linalg.eigh(matrix @ matrix.T).eigenvectors[:, -1]
    u = u * u[u.abs().argmax()].sign()
    v = matrix.T @ u
    return u.float(), (v / v.norm()).float()


def golden_weights(name: str) -> dict[str, Tensor]:
    """A state dict for a component: authors' names and shapes, golden values."""
    prefix, fill, weights = components()[name]["prefix"], rule(), {}
    for key, shape in published_shapes(name).items():
        if key.endswith("num_batches_tracked"):
            weights[key] = torch.zeros((), dtype=torch.int64)
        else:
            weights[key] = torch.from_numpy(fill.draw(prefix + key, tuple(shape)))
    for key in [key for key in weights if key.endswith("weight_orig")]:
        base = key.removesuffix("orig")
        weights[base + "u"], weights[base + "v"] = leading_vectors(weights[key])
    return weights


def golden(model: M, name: str) -> M:
    """The model with golden weights, in evaluation mode."""
    model.load_state_dict({**model.state_dict(), **golden_weights(name)})
    return model.eval()


def vectors(name: str) -> tuple[list[Tensor], list[Tensor]]:
    """Golden inputs and outputs of a component."""
    with np.load(FOLDER / f"{name}.npz") as stored:
        arrays = {key: torch.from_numpy(stored[key]) for key in stored.files}
    return [arrays[k] for k in sorted(arrays) if k.startswith("in_")], [
        arrays[k] for k in sorted(arrays) if k.startswith("out_")
    ]


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """|got - wanted| / |wanted|, over what the golden vector has finite."""
    finite = torch.isfinite(wanted)
    return float((got - wanted)[finite].norm() / wanted[finite].norm())
