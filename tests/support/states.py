"""Weights of freshly built modules, and whether two are the same."""

from collections import OrderedDict

import torch
from torch import Tensor, nn


def states(
    components: dict[str, nn.Module], prefix: str = ""
) -> dict[str, OrderedDict[str, Tensor]]:
    return {
        name: OrderedDict((prefix + key, value) for key, value in module.state_dict().items())
        for name, module in components.items()
    }


def same(module: nn.Module, other: nn.Module) -> bool:
    mine, theirs = module.state_dict(), other.state_dict()
    return list(mine) == list(theirs) and all(torch.equal(mine[key], theirs[key]) for key in mine)
