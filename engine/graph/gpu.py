"""Which GPU is here, and refusals where one is needed and there is none."""

import copy
from dataclasses import dataclass

import torch
from torch import nn

from rtvc.errors import EngineError


@dataclass(frozen=True)
class Gpu:
    """The GPU that engines would run on.

    Attributes:
        name: as its driver spells it.
        capability: compute capability, as `9.0`.
    """

    name: str
    capability: str


def gpu() -> Gpu | None:
    """The current CUDA device, if torch sees one."""
    if not torch.cuda.is_available():
        return None
    return Gpu(torch.cuda.get_device_name(), ".".join(map(str, torch.cuda.get_device_capability())))


def need_gpu(what: str) -> Gpu:
    """The current CUDA device.

    Raises:
        EngineError: when there is none.
    """
    card = gpu()
    if card is None:
        raise EngineError(
            f"{what} needs an NVIDIA GPU, and torch {torch.__version__} sees none: run it on a"
            " machine with a GPU, its driver and a CUDA build of torch, or use a backend for CPUs"
            " (rtvc build --backend auto)"
        )
    return card


def placed(module: nn.Module, device: torch.device, kernels: bool = False) -> nn.Module:
    """A model for stepping on a device: itself on a CPU, a copy elsewhere, so that conditions are
    still made where voices lie.

    Args:
        module: on a CPU.
        device: where steps run.
        kernels: let layers run on our kernels; otherwise they are plain torch.
    """
    from rtvc.layers.dispatch import set_implementation

    if device.type == "cpu":
        return module
    return set_implementation(copy.deepcopy(module).to(device), "auto" if kernels else "reference")
