"""Files to state dicts by component.

Nothing in a file is ever run. Pickles go through torch's restricted reader (`weights_only=True`); a
file that names code is refused, but for the few names below that the authors' own files hold in
optimiser and scheduler state: those are read as inert placeholders.
"""

import math
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtvc.errors import CheckpointError
from rtvc.models.build import BUILDERS, identify
from rtvc.models.pickles import TENSORS, check_pickles
from rtvc.printable import printable
from rtvc.tensorfile import MOST_TENSORS, first_line, opened

StrPath = str | os.PathLike[str]


class Inert:
    """Stands for an object that a checkpoint holds beside its weights; takes anything, does
    nothing."""

    def __new__(cls, *_: object, **__: object) -> "Inert":
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        """Whatever it was made from is dropped."""

    def __setstate__(self, _: object) -> None:
        """Whatever state it had is dropped."""


def plain_dict(*_: object) -> dict[Any, Any]:
    """Stands for `collections.defaultdict`."""
    return {}


PLACEHOLDERS: dict[str, Any] = {
    # A bound method of the scheduler (`OneCycleLR._annealing_cos`) is pickled as getattr(scheduler,
    # name).
    "builtins.getattr": Inert,
    "builtins.dict": Inert,
    "collections.defaultdict": plain_dict,
    "torch.optim.lr_scheduler.OneCycleLR": Inert,
    "torch.optim.adam.Adam": Inert,
    "torch.optim.adamw.AdamW": Inert,
    "numpy.core.multiarray.scalar": Inert,
    "numpy._core.multiarray.scalar": Inert,
    "numpy.dtype": Inert,
}
"""What the authors' files name beside tensors, and the harmless thing that is put in its place."""
ALLOWED = TENSORS | set(PLACEHOLDERS)
"""Everything that a file may name."""
DEEPEST = 4
"""Wrappers around weights; one that holds itself has no end."""
SHARED = 2
"""Times that a file's bytes may be claimed by its tensors: some are tied, and have two names."""

RENAMED = {
    ".parametrizations.weight.original0": ".weight_g",
    ".parametrizations.weight.original1": ".weight_v",
    ".parametrizations.weight.original": ".weight_orig",
    ".parametrizations.weight.0._u": ".weight_u",
    ".parametrizations.weight.0._v": ".weight_v",
}
"""Endings that torch's newer weight and spectral norm write, and the authors' for the same
tensors."""


def read_states(path: StrPath) -> dict[str, dict[str, Tensor]]:
    """State dicts by component, as in the file but for `module.` prefixes and the names of newer
    norms.

    Raises:
        CheckpointError: the file is missing, truncated, foreign or hostile, or claims more numbers
            than it holds.
    """
    file = Path(path)
    if not file.is_file():
        raise CheckpointError(
            f"expected a checkpoint (.pth, .safetensors), {path} is not there or not a file:"
            " check the path"
        )
    if file.suffix == ".safetensors":
        with opened(file) as tensors:
            payload: Any = tensors.read()
    else:
        payload = read_pickle(file)
    states = by_component(payload)
    if not states:
        raise CheckpointError(
            f"{path} was read, but holds no weights of StyleTTS-VC or StyleTTS 2 (`net`, `model`,"
            " or components by name)"
        )
    check_claims(file, states)
    return {
        name: {renamed(key): tensor for key, tensor in state.items()}
        for name, state in states.items()
    }


def check_claims(file: Path, states: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Refuses more tensors than a model has, tensors that are not dense, and more numbers than the
    file can hold.

    A pickle may say that a tensor repeats one number a billion times, or that many tensors share
    their numbers.

    Raises:
        CheckpointError: naming the tensor.
    """
    tensors = {
        f"{name}.{key}": tensor for name, state in states.items() for key, tensor in state.items()
    }
    if len(tensors) > MOST_TENSORS:
        raise CheckpointError(
            f"expected at most {MOST_TENSORS} tensors, {file} names {len(tensors)}: it is no"
            " file of weights"
        )
    held, claimed = file.stat().st_size, 0
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise CheckpointError(
                f"{file} holds {printable(name)} as no plain tensor ({tensor.layout}): export it"
                " again"
            )
        claimed += math.prod(tensor.shape) * tensor.element_size()
        if claimed > SHARED * held:
            raise CheckpointError(
                f"{file} has {held} bytes and claims {claimed} up to {printable(name)}"
                f" {tuple(tensor.shape)}: it is damaged, get it again"
            )


def read_pickle(file: Path) -> Any:
    """What torch's restricted reader makes of a file, whose opcodes were looked at before
    (`rtvc.models.pickles`).

    Raises:
        CheckpointError: it is truncated or foreign, or names what weights have no use for.
    """
    try:
        check_pickles(file, ALLOWED)
        stand_ins: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
            (stand_in, name) for name, stand_in in PLACEHOLDERS.items()
        ]
        with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols: what cannot be read fails below
            return torch.load(file, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        raise damaged(file, error) from error


def damaged(file: Path, error: Exception) -> CheckpointError:
    """One line for a file that is no readable checkpoint."""
    size = f"{file.stat().st_size} bytes" if file.is_file() else "gone"
    return CheckpointError(
        f"{file} ({size}) is truncated or no checkpoint ({type(error).__name__}:"
        f" {first_line(error)}): get the file again"
    )


def is_state(value: object) -> bool:
    """Whether a value is a state dict: names to tensors, at least one."""
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    )


def by_component(payload: object, wrapped: int = 0) -> dict[str, dict[str, Tensor]]:
    """Sorts what a file holds by component; empty if it holds none.

    Takes {"net": {component: state}}, {"net" | "model" | "generator": state}, {component: state},
    {"component.key": tensor} and a bare state; `wrapped` is the number of wrappers around it.
    """
    if not isinstance(payload, Mapping) or wrapped > DEEPEST:
        return {}
    if is_state(payload):
        grouped: dict[str, dict[str, Tensor]] = {}
        for key, tensor in payload.items():
            head, _, rest = key.partition(".")
            grouped.setdefault(head if rest else "", {})[rest or key] = tensor
        state = without_prefix(payload)
        name = identify(state)
        if name is None:
            return (
                {head: without_prefix(part) for head, part in grouped.items()}
                if set(grouped) & set(BUILDERS)
                else {}
            )
        return {name: state}
    for wrapper in ("net", "model", "generator"):
        if isinstance(payload.get(wrapper), Mapping):
            return by_component(payload[wrapper], wrapped + 1)
    return {
        name: without_prefix(state)
        for name, state in payload.items()
        if isinstance(name, str) and is_state(state)
    }


def without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drops the `module.` that data-parallel training puts before every name."""
    parallel = all(key.startswith("module.") for key in state)
    return {
        key.removeprefix("module.") if parallel else key: tensor for key, tensor in state.items()
    }


def renamed(key: str) -> str:
    """A name as the authors' norms have it."""
    return next(
        (key.removesuffix(new) + old for new, old in RENAMED.items() if key.endswith(new)), key
    )
