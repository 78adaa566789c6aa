"""Configuration of a training run: a TOML file, `--set` overrides, and errors that name the nearest
key."""

import difflib
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rtvc.errors import ConfigError
from rtvc.printable import printable

LARGEST_FILE = 1 << 20
"""Bytes of a configuration file: recipes have under 2 kB."""
LONGEST_KEY = 100
"""Characters of a key that are compared with those that there are."""
DEEPEST = 16
"""Tables within tables."""
MOST = 1 << 53
"""Largest size of a number: of a seed, say. Sizes of which memory is made have bounds of their
own."""


class Section(BaseModel):
    """A table of a configuration file; keys that it does not name are errors, and so are NaN and
    infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class OptimizerConfig(Section):
    """AdamW and its learning-rate schedule."""

    lr: float = Field(default=1e-4, gt=0)
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = Field(default=1e-4, ge=0)
    eps: float = Field(default=1e-8, gt=0)
    lr_scale: dict[str, float] = {}
    """Factor on the learning rate of single modules, by module name."""
    updates: int = Field(default=1, ge=1, le=100)
    """Times that a phase is run in each step: opponents that learn too slowly take several."""
    schedule: Literal["constant", "cosine", "onecycle"] = "cosine"
    warmup: int = Field(default=0, ge=0)
    """Steps of linear rise to the peak (`constant` and `cosine`)."""
    pct_start: float = Field(default=0.3, ge=0, lt=1)
    """Share of the run that rises to the peak (`onecycle`)."""
    div_factor: float = Field(default=25.0, ge=1)
    """Peak over first learning rate (`onecycle`)."""
    final: float = Field(default=0.05, ge=0, le=1)
    """Last learning rate as a share of the peak (`cosine` and `onecycle`)."""


class CheckpointConfig(Section):
    """When the run's state is written."""

    every: int = Field(default=1000, ge=1)
    """Steps between checkpoints."""
    minutes: float = Field(default=15.0, gt=0)
    """Minutes after which one is written although `every` is not reached."""
    keep: int = Field(default=3, ge=1)
    """Checkpoints kept; older ones are deleted only after a newer one is safe on disk."""


class LogConfig(Section):
    """What is reported, and how often (in steps)."""

    every: int = Field(default=20, ge=1)
    sample_every: int = Field(default=1000, ge=0)
    """Audio and mel pictures in TensorBoard; 0 never."""
    validate_every: int = Field(default=1000, ge=0)
    """Held-out measurements; 0 never."""
    tensorboard: bool = True


class InitConfig(Section):
    """Weights to start from: a run directory or a safetensors file of an earlier stage, or the
    authors' `.pth`."""

    path: Path
    modules: dict[str, str] = {}
    """Module of this stage -> module of the earlier one. Empty: every module that both have."""
    grow: bool = False
    """Whether modules may have parts that the weights lack, which stay as they begin: how a part
    that begins at zero is added to a model that has learnt, as residual blocks are then made to."""


class DataConfig(Section):
    """Where the recordings are and how they are fed."""

    manifest: Path
    valid: Path | None = None
    """Recordings for held-out measurements; none where not given."""
    batch: int = Field(default=16, ge=1, le=65536)
    seconds: float = Field(default=2.4, gt=0, le=3600)
    """Length of the pieces that stages on pieces cut."""
    longest: float = Field(default=20.0, gt=0, le=3600)
    """Recordings longer than this are left out by stages on whole recordings."""
    balance: float = Field(default=0.0, ge=0, le=1)
    """0: every recording once an epoch; 1: every speaker equally often."""
    bucket: int = Field(default=16, ge=1, le=65536)
    """Batches that are sorted by length together."""
    cache: Path | None = None
    """Folder for decoded recordings and labels."""
    cache_mb: float = Field(default=1024.0, ge=0)
    """Decoded recordings kept in memory."""


class RunConfig(Section):
    """What every stage has. A stage adds `model`, `data` and `weights` (one factor for each of its
    losses)."""

    seed: int = 0
    steps: int = Field(default=100_000, ge=1)
    """Length of the run, which schedules refer to."""
    accumulate: int = Field(default=1, ge=1, le=65536)
    """Batches whose gradients are averaged before an optimizer step."""
    clip: float = Field(default=5.0, ge=0)
    """Largest norm of a phase's gradient; 0 does not clip."""
    ema: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the averaged weights that are exported; 0 exports the last weights."""
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """`auto` is bfloat16 on GPUs, and on CPUs that multiply it faster; a run that goes on elsewhere
    may choose the other one."""
    fused: bool | Literal["auto"] = "auto"
    """Adaptive norms and iSTFT as fused operators, forward and backward: `auto` on CUDA, where they
    are kernels; `true` everywhere."""
    device: str = "auto"
    """`auto` takes CUDA when there is one; else `cpu` or `cuda`."""
    deterministic: bool = False
    """Deterministic algorithms where CUDA has them: a resumed run is then bit-exact there too, as
    it always is on a CPU."""
    workers: int = Field(default=1, ge=0, le=1024)
    """Threads that prepare batches ahead; 0 prepares them between steps."""
    bad_steps: int = Field(default=20, ge=0)
    """Steps in a row with a loss or gradient that is not finite, after which the run gives up. Each
    one is skipped."""
    optimizer: OptimizerConfig = OptimizerConfig()
    optimizers: dict[str, dict[str, Any]] = {}
    """Differences from `optimizer`, by phase name."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()
    init: list[InitConfig] = []

    def optimizer_of(self, phase: str) -> OptimizerConfig:
        """The optimizer's settings in one phase."""
        settings = self.optimizer.model_dump() | self.optimizers.get(phase, {})
        return validated(OptimizerConfig, settings, f"[optimizers.{phase}]")


C = TypeVar("C", bound=BaseModel)
DOTTED = re.compile(r"""(?:[\w"'-]+[ \t]*\.[ \t]*){64}""")
"""A key of so many parts: the time and memory that tomllib takes for one grow with their square."""


def load_config(kind: type[C], path: Path, overrides: Sequence[str] = ()) -> C:
    """A configuration from a TOML file and `key=value` overrides (dotted keys, TOML values; a bare
    word is a string).

    Raises:
        ConfigError: the file or an override does not parse, or names a key that does not exist.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ConfigError(
                f"expected at most {LARGEST_FILE} bytes, got {path.stat().st_size} in {path}: it is"
                " no configuration"
            )
        table = parsed(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    for override in overrides:
        apply_override(table, override)
    return validated(kind, table, str(path))


def parsed(text: str) -> dict[str, Any]:
    """A TOML text.

    Raises:
        ValueError: it is none, nests deeper than DEEPEST, or holds a number beyond MOST.
    """
    if len(text) > LARGEST_FILE:
        raise ValueError(f"expected at most {LARGEST_FILE} characters, got {len(text)}")
    if DOTTED.search(text):
        raise ValueError(f"it nests values deeper than {DEEPEST}")
    try:
        table = tomllib.loads(text)
    except RecursionError as error:
        raise ValueError(f"it nests values deeper than {DEEPEST}") from error
    _check(table, 0)
    return table


def _check(value: object, depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError(f"it nests values deeper than {DEEPEST}")
    if isinstance(value, int | float) and not -MOST <= value <= MOST:
        raise ValueError(f"expected numbers from {-MOST} to {MOST}, got {printable(value, 30)}")
    for part in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        _check(part, depth + 1)


def apply_override(table: dict[str, Any], override: str) -> None:
    """Writes one `key=value` into a table, in place."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set: expected key=value, got {override!r}")
    try:
        value = parsed(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    except ValueError as error:
        raise ConfigError(f"--set {printable(override)}: {error}") from error
    *parents, last = key.strip().split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {override}: {parent} is a value, not a table")
    table[last] = value


def validated(kind: type[C], table: dict[str, Any], where: str) -> C:
    """The model, or a ConfigError that lists every problem and the nearest key for each unknown
    one. A section that is given in part is its default but for that part."""
    try:
        return kind.model_validate(completed(kind, table))
    except ValidationError as error:
        lines = [
            _explain(kind, problem["loc"], problem["type"], problem["msg"], problem["input"])
            for problem in error.errors()
        ]
        raise ConfigError("\n".join([f"{where} is not a valid configuration:", *lines])) from error


def completed(kind: type[BaseModel], table: dict[str, Any]) -> dict[str, Any]:
    """A table with what a model's defaults say of the keys that its sections leave out: by itself
    pydantic takes them from the section's class, whatever the field's default is."""
    whole = dict(table)
    for name, field in kind.model_fields.items():
        given = table.get(name)
        if isinstance(field.default, BaseModel) and isinstance(given, dict):
            whole[name] = over(field.default, given)
    return whole


def over(default: BaseModel, given: dict[str, Any]) -> dict[str, Any]:
    """A section's default with what is given in its place."""
    whole = default.model_dump()
    for name, value in given.items():
        inner = getattr(default, name) if name in whole else None
        if isinstance(inner, BaseModel) and isinstance(value, dict):
            value = over(inner, value)
        whole[name] = value
    return whole


def nearest(name: str, known: Sequence[str]) -> str:
    """`did you mean 'x'?`, or the list of what there is."""
    close = difflib.get_close_matches(name[:LONGEST_KEY], known, 1, 0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"


def _explain(
    kind: type[BaseModel], loc: tuple[int | str, ...], problem: str, message: str, value: object
) -> str:
    key = printable(".".join(str(part) for part in loc))
    if problem == "extra_forbidden":
        return f"  unknown key {key!r}; {nearest(str(loc[-1]), _siblings(kind, loc[:-1]))}"
    if problem == "missing":
        return f"  {key} is missing"
    return f"  {key} = {printable(repr(value), 80)}: {message}"


def _siblings(kind: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The keys of the table at a place in a configuration model."""
    here: Any = kind
    for part in loc:
        if isinstance(here, type) and issubclass(here, BaseModel):
            field = here.model_fields.get(str(part))
            here = field.annotation if field is not None else None
        elif get_origin(here) in (list, dict, tuple):
            here = get_args(here)[-1]
        if get_origin(here) not in (list, dict, tuple, None):
            models = [a for a in get_args(here) if isinstance(a, type) and issubclass(a, BaseModel)]
            here = models[0] if models else here
    return list(here.model_fields) if isinstance(here, type) and issubclass(here, BaseModel) else []
