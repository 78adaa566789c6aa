"""Checkpoints that survive kill -9, power loss and full disks.

    RUN/checkpoints/step-00001000.pt      weights, optimizers, averages, counters
    RUN/checkpoints/step-00001000.json    its length and SHA-256: without it there is none

Both are written under a temporary name, synced, and renamed; the .json comes last. A step's
randomness and data are functions of the step number (`rtvc.data.seeds`), so nothing else is needed
for the run to continue as if it had never stopped.
"""

import hashlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field, ValidationError
from torch import Tensor, nn

from rtvc.errors import CheckpointError, TrainingError
from rtvc.files import TEMPORARY, write
from rtvc.layers.blocks import ConvBlock
from rtvc.models.loading import listed, load_into
from rtvc.models.read_checkpoint import read_pickle, read_states
from rtvc.models.streaming.eight_bits import unpacked
from rtvc.printable import first_problem
from rtvc.tensorfile import opened
from rtvc.train.config import nearest

STEP = re.compile(r"step-([0-9]{1,15})")
LARGEST_NOTE = 1 << 16
"""Bytes beside a checkpoint that say what it is: some hundred."""


class Facts(BaseModel):
    """What lies beside a checkpoint."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Origin(BaseModel):
    """What a checkpoint says of the run that wrote it."""

    stage: str
    config: str


class Progress(Origin):
    """What it says beside that of how far the run was."""

    step: int = Field(ge=0)
    skipped: int = Field(ge=0)
    bad_in_row: int = Field(ge=0)
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    world: int = Field(ge=1)


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Replaces a file, or leaves the old one untouched."""
    write(path, data, durable=True)


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, run: Path, keep: int = 3) -> None:
        self.folder, self.keep = run / "checkpoints", keep

    def save(
        self, step: int, state: Mapping[str, Any], note: Mapping[str, Any] | None = None
    ) -> Path:
        """Writes a checkpoint and then deletes the ones that are no longer kept.

        Raises:
            OSError: the disk is full or gone. Earlier checkpoints are untouched and nothing is left
                behind.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = [
            path for path in self.folder.glob("step-*.pt") if not path.with_suffix(".json").exists()
        ]
        for stale in [
            *self.folder.glob(f"{TEMPORARY}*"),
            *unfinished,
        ]:  # what a kill in the middle of an earlier save left
            stale.unlink(missing_ok=True)
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        data = buffer.getbuffer()
        path = self.folder / f"step-{step:08d}.pt"
        write_bytes(path, data)
        facts = {
            "step": step,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            **(note or {}),
        }
        write_bytes(path.with_suffix(".json"), json.dumps(facts, indent=1).encode())
        for old in self.steps()[: -self.keep]:
            for suffix in (".json", ".pt"):
                (self.folder / f"step-{old:08d}{suffix}").unlink(missing_ok=True)
        return path

    def steps(self) -> list[int]:
        """The steps with a checkpoint, in order."""
        return sorted(
            int(match[1])
            for path in self.folder.glob("step-*.json")
            if (match := STEP.fullmatch(path.stem))
        )

    def latest(self) -> tuple[int, dict[str, Any], list[str]] | None:
        """The newest checkpoint that is whole: its step, its state, and why newer ones were passed
        over.

        Raises:
            TrainingError: there are checkpoints, but none is whole.
        """
        refused: list[str] = []
        for step in reversed(self.steps()):
            try:
                return step, self.load(step), refused
            except CheckpointError as error:
                refused.append(str(error))
        if refused:
            raise TrainingError(
                "no checkpoint of this run can be read; --fresh starts again:\n"
                + "\n".join(refused)
            )
        return None

    def load(self, step: int) -> dict[str, Any]:
        """One checkpoint, on the CPU.

        Raises:
            CheckpointError: it is missing, truncated or damaged.
        """
        path = self.folder / f"step-{step:08d}.pt"
        note = path.with_suffix(".json")
        try:
            if note.stat().st_size > LARGEST_NOTE:
                raise CheckpointError(
                    f"expected at most {LARGEST_NOTE} bytes, got {note.stat().st_size} in {note}:"
                    " it is no checkpoint's"
                )
            facts = Facts.model_validate_json(note.read_bytes())
            with path.open("rb") as file:
                size = path.stat().st_size
                whole = (
                    size == facts.bytes
                    and hashlib.file_digest(file, "sha256").hexdigest() == facts.sha256
                )
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error
        except ValidationError as error:
            raise CheckpointError(
                f"{path} cannot be read: {note.name} does not say what it is"
                f" ({first_problem(error)})"
            ) from error
        if not whole:
            raise CheckpointError(
                f"{path} is damaged: expected {facts.bytes} bytes of the checksum beside it, got"
                f" {size}"
            )
        return load_tensors(path)


def load_tensors(path: Path) -> dict[str, Any]:
    """A torch file of tensors and plain values; anything that would run code is refused."""
    try:
        state = read_pickle(path)
    except CheckpointError as error:
        raise CheckpointError(f"{path} does not load as plain tensors: {error}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"expected a dict in {path}, got a {type(state).__name__}")
    return state


def load_weights(path: Path) -> dict[str, dict[str, Tensor]]:
    """Module name -> its state dict, from a run directory (its averaged weights), exported
    safetensors, or the authors' `.pth` files.

    Raises:
        CheckpointError: there are no weights at this path.
    """
    if path.is_dir():
        if (path / "weights.safetensors").exists():
            path = path / "weights.safetensors"
        else:
            checkpoint = Checkpoints(path).latest()
            if checkpoint is None:
                raise CheckpointError(
                    f"{path} holds no weights.safetensors and no checkpoints: name a run directory"
                    " or a safetensors file"
                )
            try:
                return exported(checkpoint[1])
            except (AttributeError, KeyError, TypeError) as error:
                raise CheckpointError(
                    f"the checkpoint of {path} is not that of a run ({error!r}): name another run"
                ) from error
    if path.suffix != ".safetensors":
        return read_states(path)
    with opened(path) as file:
        flat = unpacked(file.read())
    modules: dict[str, dict[str, Tensor]] = {}
    for name, tensor in flat.items():
        module, _, rest = name.partition(".")
        modules.setdefault(module, {})[rest] = tensor
    return modules


def exported(state: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
    """The exported modules of a checkpoint, weights replaced by their averages, also where a module
    holds one under two names."""
    average: dict[int, Tensor] = {}
    for key, value in state["average"].items():
        module, _, name = key.partition(".")
        average[state["modules"][module][name].data_ptr()] = value
    modules: dict[str, dict[str, Tensor]] = {}
    for module in state["averaged"]:
        weights: Mapping[str, Tensor] = state["modules"][module]
        modules[module] = {
            name: average.get(tensor.data_ptr(), tensor) if tensor.numel() else tensor
            for name, tensor in weights.items()
        }
    return modules


def save_weights(
    path: Path, modules: Mapping[str, Mapping[str, Tensor]], note: Mapping[str, str]
) -> None:
    """Writes `module.name` -> tensor as safetensors, atomically."""
    from safetensors.torch import save

    flat = {
        f"{module}.{name}": t.detach().cpu().clone().contiguous()
        for module, weights in modules.items()
        for name, t in weights.items()
    }
    write_bytes(path, save(flat, metadata=dict(note)))


def begin_at_zero(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Lets the residual blocks of a module that the weights know nothing of add nothing."""
    for name, part in module.named_modules():
        if isinstance(part, ConvBlock) and not any(key.startswith(f"{name}.") for key in weights):
            part.begin_at_zero()


def initialise(
    modules: Mapping[str, nn.Module], path: Path, names: Mapping[str, str], *, grow: bool = False
) -> list[str]:
    """Copies weights of an earlier stage into modules of this one; returns the modules that
    received some.

    Args:
        modules: this stage's.
        path: see `load_weights`.
        names: module of this stage -> module of the earlier one; empty takes every name that both
            have.
        grow: whether a module may have parts that the weights lack, which it keeps as they are, but
            that its residual blocks add nothing yet.

    Raises:
        CheckpointError: a module is unknown, or its weights do not fit.
    """
    weights = load_weights(path)
    pairs = dict(names) or {name: name for name in modules if name in weights}
    if not pairs:
        raise CheckpointError(
            f"{path} holds {listed(list(weights))}; this stage has {', '.join(modules)}: name pairs"
            " in [[init]] modules"
        )
    for mine, theirs in pairs.items():
        if mine not in modules:
            raise CheckpointError(
                f"[[init]] names the module {mine!r}, which this stage lacks;"
                f" {nearest(mine, list(modules))}"
            )
        if theirs not in weights:
            raise CheckpointError(
                f"{path} has no module {theirs!r}; {nearest(theirs, list(weights))}"
            )
        if grow:
            begin_at_zero(modules[mine], weights[theirs])
        learnt = modules[mine].state_dict() | weights[theirs] if grow else weights[theirs]
        load_into(modules[mine], learnt, f"for the module {mine!r}, {theirs!r} of {path}")
    return list(pairs)
