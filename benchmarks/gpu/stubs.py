"""What a bare machine lacks: our model on nothing but torch and numpy.

`furnish()` puts small stand-ins where pydantic or safetensors are not installed, enough for what
measuring a model imports (settings with defaults, no validation). Without safetensors the weights
are random, which costs the same time.
"""

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from inspect import get_annotations
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "triton", "numpy", "safetensors", "pydantic", "torch-tensorrt", "tensorrt")


class Settings:
    """In place of `pydantic.BaseModel`: keyword arguments over the class's defaults."""

    def __init__(self, **values: Any) -> None:
        names = {name for cls in type(self).__mro__ for name in get_annotations(cls)} - {
            "model_config"
        }
        for name in sorted(names | set(values)):
            if name not in names or (name not in values and not hasattr(type(self), name)):
                raise ValueError(
                    f"expected the settings {sorted(names)} of {type(self).__name__}, got others,"
                    f" or lacked one: {name!r}"
                )
            default: Any = getattr(type(self), name, None)
            value: Any = values.get(name, default)
            setattr(self, name, tuple(value) if isinstance(default, tuple) else value)


def furnish() -> list[str]:
    """Stand-ins for what is missing; returns their names."""
    stands = {"pydantic": pydantic_stand_in, "safetensors": safetensors_stand_in}
    absent = [name for name in stands if missing(name)]
    for name in absent:
        stands[name]()
    return absent


def missing(package: str) -> bool:
    """Whether a package is not installed; a stand-in does not count."""
    if package in sys.modules:
        return sys.modules[package].__spec__ is None
    return find_spec(package) is None


def pydantic_stand_in() -> None:
    """Settings without validation."""

    def field(default: Any = None, **_: Any) -> Any:
        return default

    def keep(*_: Any, **__: Any) -> Callable[[Any], Any]:
        return lambda function: function

    stand = sys.modules["pydantic"] = ModuleType("pydantic")
    names = {
        "BaseModel": Settings,
        "ConfigDict": dict,
        "Field": field,
        "ValidationError": ValueError,
    }
    stand.__dict__.update({**names, "field_validator": keep, "model_validator": keep})


def safetensors_stand_in() -> None:
    """Names that can be imported; what they stand for is refused when it is used."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise ModuleNotFoundError(
            "safetensors is not installed: pip install safetensors", name="safetensors"
        )

    names: dict[str, Any] = {
        name: refuse for name in ("safe_open", "load", "load_file", "save", "save_file")
    }
    for module in ("safetensors", "safetensors.torch", "safetensors.numpy"):
        sys.modules[module] = ModuleType(module)
        sys.modules[module].__dict__.update(
            {**names, "SafetensorError": ValueError, "__path__": []}
        )


def shipped(tiny: bool = False) -> tuple[Any, str]:
    """The streaming model on the CPU, and what its weights are.

    Args:
        tiny: a much smaller one with random weights.
    """
    from rtvc.models.streaming.dial import DialConfig, DialConverter
    from rtvc.models.streaming.encoder import EncoderConfig

    if tiny:
        torch.manual_seed(0)
        config = DialConfig(
            encoder=EncoderConfig(hidden=16, dilations=(1, 2), attention=()),
            pitch_hidden=16,
            pitch_dilations=(1,),
            decoder_hidden=16,
            decoder_dilations=(1, 2),
            acoustic_hidden=8,
            prosodic_hidden=8,
        )
        return DialConverter(config).eval(), "random, tiny"
    if missing("safetensors"):
        torch.manual_seed(0)
        return DialConverter().eval(), "random: safetensors is not installed"
    from rtvc.models.streaming.assets import DEFAULT, load_default

    return load_default(), DEFAULT.name


def facts() -> dict[str, Any]:
    """The machine, the versions, the commit."""
    from rtvc import processor

    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "machine": {
            "gpu": gpu,
            "cpu": processor.name(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "packages": versions,
        },
        "commit": (
            output(["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
            or "no checkout"
        ),
    }


def output(command: list[str]) -> str | None:
    """What a program prints, None where it is missing or fails."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def smi(*names: str) -> dict[str, str] | None:
    """Figures of the current GPU by nvidia-smi; None where it does not answer."""
    line = output(
        [
            "nvidia-smi",
            f"--query-gpu={','.join(names)}",
            "--format=csv,noheader,nounits",
            f"--id={visible()}",
        ]
    )
    return (
        dict(zip(names, (part.strip() for part in line.splitlines()[0].split(",")), strict=True))
        if line
        else None
    )


def visible() -> str:
    """The first GPU that this process may use, as nvidia-smi counts."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
