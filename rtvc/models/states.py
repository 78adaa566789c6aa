"""Files to state dicts by component.

Nothing in a file is ever run. Pickles go through torch's restricted reader (`weights_only=True`); a file that names code
is refused, but for the few names below that the authors' own files hold in optimiser and scheduler state: those are read as
inert placeholders.
"""

import os
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rtvc.errors import CheckpointError
from rtvc.models.build import BUILDERS, identify

StrPath = str | os.PathLike[str]


class Inert:
    """Stands for an object that a checkpoint holds beside its weights; takes anything, does nothing."""

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
    # A bound method of the scheduler (`OneCycleLR._annealing_cos`) is pickled as getattr(scheduler, name).
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

RENAMED = {
    ".parametrizations.weight.original0": ".weight_g",
    ".parametrizations.weight.original1": ".weight_v",
    ".parametrizations.weight.original": ".weight_orig",
    ".parametrizations.weight.0._u": ".weight_u",
    ".parametrizations.weight.0._v": ".weight_v",
}
"""Endings that torch's newer weight and spectral norm write, and the authors' for the same tensors."""


def read_states(path: StrPath) -> dict[str, dict[str, Tensor]]:
    """State dicts by component, as in the file but for `module.` prefixes and the names of newer norms.

    Raises:
        CheckpointError: the file is missing, truncated, foreign or hostile.
    """
    file = Path(path)
    if not file.is_file():
        raise CheckpointError(f"{path} is not there or not a file, a checkpoint (.pth, .safetensors) was wanted: check the path")
    flat = file.suffix == ".safetensors"
    payload = read_safetensors(file) if flat else read_pickle(file)
    states = by_component(payload)
    if not states:
        raise CheckpointError(f"{path} was read, but holds no weights of StyleTTS-VC or StyleTTS 2 (`net`, `model`, or components by name)")
    return {name: {renamed(key): tensor for key, tensor in state.items()} for name, state in states.items()}


def read_pickle(file: Path) -> Any:
    """What torch's restricted reader makes of a file."""
    try:
        stand_ins: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [(stand_in, name) for name, stand_in in PLACEHOLDERS.items()]
        with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols: what cannot be read fails below
            return torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)|(?:unrecognized function|but got) (.+?)(?: which|$|\n)", str(error))
        if found:
            name = found[1] or found[2]
            raise CheckpointError(f"{file} names {name}, which could run code, and was not read: get the weights as safetensors") from None
        raise damaged(file, error) from error
    except Exception as error:  # a damaged pickle can fail in any way
        raise damaged(file, error) from error


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file."""
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(file, error) from error


def damaged(file: Path, error: Exception) -> CheckpointError:
    """One line for a file that is no readable checkpoint."""
    cause = (str(error).strip().splitlines() or [""])[0][:160]
    return CheckpointError(
        f"{file} ({file.stat().st_size} bytes) is truncated or no checkpoint ({type(error).__name__}: {cause}): get the file again"
    )


def is_state(value: object) -> bool:
    """Whether a value is a state dict: names to tensors, at least one."""
    return isinstance(value, Mapping) and bool(value) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())


def by_component(payload: object) -> dict[str, dict[str, Tensor]]:
    """Sorts what a file holds by component; empty if it holds none.

    Takes {"net": {component: state}}, {"net" | "model" | "generator": state}, {component: state}, {"component.key": tensor}
    and a bare state.
    """
    if not isinstance(payload, Mapping):
        return {}
    if is_state(payload):
        grouped: dict[str, dict[str, Tensor]] = {}
        for key, tensor in payload.items():
            head, _, rest = key.partition(".")
            grouped.setdefault(head if rest else "", {})[rest or key] = tensor
        state = without_prefix(payload)
        name = identify(state)
        if name is None:
            return {head: without_prefix(part) for head, part in grouped.items()} if set(grouped) & set(BUILDERS) else {}
        return {name: state}
    for wrapper in ("net", "model", "generator"):
        if isinstance(payload.get(wrapper), Mapping):
            return by_component(payload[wrapper])
    return {name: without_prefix(state) for name, state in payload.items() if isinstance(name, str) and is_state(state)}


def without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drops the `module.` that data-parallel training puts before every name."""
    parallel = all(key.startswith("module.") for key in state)
    return {key.removeprefix("module.") if parallel else key: tensor for key, tensor in state.items()}


def renamed(key: str) -> str:
    """A name as the authors' norms have it."""
    return next((key.removesuffix(new) + old for new, old in RENAMED.items() if key.endswith(new)), key)
