"""Which implementation of an operator the layers of a model run: each layer asks its own attribute,
callers set it for a whole model."""

from typing import TypeVar

from torch import nn

from rtvc.kernels.toolchain.dispatch import Implementation

Model = TypeVar("Model", bound=nn.Module)


class Dispatched(nn.Module):
    """A layer whose forward calls an operator of `rtvc.kernels`: the same lines on every device.

    Attributes:
        implementation: see `rtvc.kernels.toolchain.dispatch`.
    """

    implementation: Implementation = "auto"


def set_implementation(model: Model, implementation: Implementation) -> Model:
    """Sets it for every layer inside a model, in place, and returns the model."""
    for module in model.modules():
        if isinstance(module, Dispatched):
            module.implementation = implementation
    return model
