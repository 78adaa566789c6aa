"""Weights of strangers into models: compared before anything is built, finite before anything is
run.

A module is first outlined: constructed with weights that have shapes and types but no memory, so
that sizes which a file only claims cost nothing. When names, shapes and types of the file's tensors
are those of the outline, the tensors themselves become its weights.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rtvc.errors import CheckpointError, RtvcError
from rtvc.printable import printable
from rtvc.tensorfile import FLOATS, first_line

M = TypeVar("M", bound=nn.Module)
SHOWN = 8
"""Names that an error lists before it says how many more there are."""


class Described(Protocol):
    """A tensor, or what is known of one that is not read yet (`rtvc.tensorfile.Described`)."""

    @property
    def dtype(self) -> torch.dtype:
        """Of its numbers."""
        ...

    @property
    def shape(self) -> torch.Size:
        """Its axes."""
        ...


class Outlining(TorchFunctionMode):
    """While it is on, `torch.empty`, from which every layer of torch makes its weights, makes
    tensors on the meta device.

    Constants are computed as ever: they are what no file brings, and their sizes are the code's
    own. `torch.device("meta")` would take them as well, and costs a second for what it imports.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Calls a function of torch."""
        given = kwargs or {}
        if func is torch.empty and given.get("device") is None:
            given = {**given, "device": "meta"}
        return func(*args, **given)


def outlined(make: Callable[[], M], what: str) -> M:
    """A module whose weights lie on the meta device; `what` names the file in the error.

    Raises:
        CheckpointError: no such module can be made.
    """
    try:
        with Outlining():
            return make()
    except RtvcError:
        raise
    except Exception as error:  # layers complain of impossible sizes in their own ways
        raise CheckpointError(
            f"{what} asks for a model that cannot be built ({type(error).__name__}:"
            f" {first_line(error)}): get the file again"
        ) from error


def misfits(module: nn.Module, came: Mapping[str, Described]) -> list[str]:
    """Every missing and unexpected name, every shape and type that differs, in words; empty if the
    weights fit."""
    expected = module.state_dict()
    both = [(name, came[name], tensor) for name, tensor in expected.items() if name in came]
    groups = {
        "missing": [name for name in expected if name not in came],
        "unexpected": [name for name in came if name not in expected],
        "of another shape": [
            f"{name} (expected {tuple(tensor.shape)}, got {tuple(stored.shape)})"
            for name, stored, tensor in both
            if stored.shape != tensor.shape
        ],
        "of another type": [
            f"{name} (expected {'floats' if tensor.is_floating_point() else kind(tensor)}, got"
            f" {kind(stored)})"
            for name, stored, tensor in both
            if (
                stored.dtype not in FLOATS
                if tensor.is_floating_point()
                else stored.dtype != tensor.dtype
            )
        ],
    }
    return [f"{len(names)} {what}: {listed(names)}" for what, names in groups.items() if names]


def kind(tensor: Described) -> str:
    """The name of a tensor's type."""
    return str(tensor.dtype).removeprefix("torch.")


def listed(names: list[str]) -> str:
    """The first names, printable, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(printable(name) for name in names[:SHOWN]) + more


def check_fit(module: nn.Module, came: Mapping[str, Described], what: str) -> None:
    """Compares weights with a module, outlined or real; `what` names them in the error.

    Raises:
        CheckpointError: with names, shapes and types that do not fit.
    """
    if complaints := misfits(module, came):
        raise CheckpointError(
            f"{what} does not fit {type(module).__name__}: {'; '.join(complaints)}"
        )


def filled(module: M, weights: Mapping[str, Tensor], what: str) -> M:
    """Gives an outlined module its weights, in the module's own types, and returns it in evaluation
    mode.

    Raises:
        CheckpointError: they do not fit, or are not finite.
    """
    check_fit(module, weights, what)
    own = {
        name: weights[name].to(tensor.dtype).contiguous()
        for name, tensor in module.state_dict().items()
    }
    check_finite(own, what)
    module.load_state_dict(own, assign=True)
    return module.eval()


def load_into(module: nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    """Copies weights into a module that exists already and must fit exactly; `what` names them in
    the error.

    Raises:
        CheckpointError: they do not fit, or are not finite.
    """
    check_fit(module, weights, what)
    check_finite(
        {name: weights[name].to(tensor.dtype) for name, tensor in module.state_dict().items()}, what
    )
    module.load_state_dict(dict(weights))


def check_finite(weights: Mapping[str, Tensor], what: str) -> None:
    """Refuses NaN and infinity where weights are loaded, not at the first voice.

    Raises:
        CheckpointError: naming the tensors.
    """
    if bad := [
        name
        for name, tensor in weights.items()
        if tensor.is_floating_point() and not tensor.isfinite().all()
    ]:
        raise CheckpointError(
            f"{what} holds NaN or infinity in {listed(bad)}: get the file again, or export an"
            " earlier checkpoint"
        )


def fingerprint(modules: Iterable[nn.Module]) -> str:
    """A name for the weights of some modules, 64 hexadecimal digits: the same wherever they lie."""
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(name.encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
