"""Files of weights: ours, and in the form of the paper's authors."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn


def save_components(path: Path, components: Mapping[str, nn.Module]) -> None:
    """Writes components: `.safetensors`, or any other suffix in the authors' form {"net":
    {component: state}}."""
    states = {name: module.state_dict() for name, module in components.items()}
    if path.suffix != ".safetensors":
        torch.save({"net": states}, path)
        return
    flat = {f"{name}.{key}": x for name, state in states.items() for key, x in state.items()}
    # Cloned, since tensors under two names may not share memory there.
    save_file({name: x.contiguous().clone() for name, x in flat.items()}, path)
