"""`auto`: which backend holds the most sessions here? Measured once a machine, model and chunk,
then remembered."""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from rtvc import processor
from rtvc.data.registry import cache_dir
from rtvc.engine.backends.base import Backend
from rtvc.engine.backends.eager import TorchBackend
from rtvc.engine.cached import open_backend
from rtvc.engine.identity import model_hash
from rtvc.engine.registry import BACKENDS, machine, versions
from rtvc.engine.trial import compare
from rtvc.errors import OutputError, RtvcError
from rtvc.files import read_json, write_json
from rtvc.models.streaming.interface import Converter

CANDIDATES = ("torch-eager", "onnx", "onnx-int8", "openvino-int8", "openvino-bf16")
"""What `auto` tries, in this order: the first holds the graph that the others are made of, the
second is on most machines near the best. `torch-compile` is left out: it takes minutes to build and
needs a compiler."""
FIDELITY_DB = 10.0
"""Least ratio of signal to error, over magnitude spectra, against torch eager on the probe: below
it a backend is not a faster model but another one. Waveforms would not do: the least error of pitch
shifts every later phase, which nobody hears."""
NEEDS = {"openvino-bf16": {"avx512_bf16", "amx_bf16", "bf16"}}
"""Features of a processor, one of which a backend needs to be worth building: without them bfloat16
is computed in float32, only slower."""
LIMITS = ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA")
"""Environment variables that keep libraries from what the processor can do."""
QUICK = 12
"""Steps by which a backend that has just been built is judged for the time being."""
MEMORY = "auto.json"
EAGER = ("torch-eager", "eager")
"""Names of the backend that needs no file."""


def cache_folder() -> Path:
    """Where engines and measurements are kept, in `rtvc.data.registry.cache_dir`.

    Raises:
        ConfigError: that is no folder.
    """
    return cache_dir() / "engines"


def key(converter: Converter, chunk: int, candidates: Sequence[str]) -> str:
    """What a measurement holds for: this machine, model, chunk, and these versions of the
    candidates' packages."""
    packages = {
        package: v
        for name in candidates
        if name in BACKENDS
        for package, v in versions(name).items()
    }
    limits = [os.environ.get(name, "") for name in LIMITS]
    return json.dumps(
        [
            "sessions",
            machine(),
            *limits,
            model_hash(converter),
            chunk,
            torch.__version__,
            sorted(packages.items()),
        ]
    )


def worthwhile(candidates: Sequence[str]) -> list[str]:
    """Torch eager, and the candidates whose packages are there and that this processor is made
    for."""
    here = processor.features()
    return [
        EAGER[0],
        *(
            name
            for name in candidates
            if name != EAGER[0]
            and all(find_spec(package) for package in BACKENDS.get(name, ("", "", ()))[2])
            and (here is None or name not in NEEDS or NEEDS[name] & here)
        ),
    ]


def recall(cache: Path, name: str) -> dict[str, Any] | None:
    """A remembered measurement, if there is one."""
    entry = remembered(cache).get(name)
    return entry if isinstance(entry, dict) and isinstance(entry.get("backend"), str) else None


def remembered(cache: Path) -> dict[str, Any]:
    """Everything that was measured on this machine; nothing where the file is missing or
    damaged."""
    try:
        known = read_json(cache / MEMORY)
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def remember(cache: Path, name: str, measurement: dict[str, Any]) -> None:
    """Keeps a measurement beside those of other models and machines."""
    with contextlib.suppress(OutputError):  # then it is measured again the next time
        write_json(cache / MEMORY, remembered(cache) | {name: measurement})


def contest(
    converter: Converter, chunk: int, *, cache: Path, candidates: Sequence[str] = CANDIDATES
) -> Iterator[tuple[Backend, dict[str, Any]]]:
    """Builds what is missing, one backend after the other, and gives the best whenever it changes,
    with what was measured; the last is what all of them together, measured longer, say. It is
    remembered."""
    names = worthwhile(candidates)
    backends, refused = list[Backend]([TorchBackend(converter, chunk)]), dict[str, str]()
    best: Backend = backends[0]
    for name in names[1:]:
        try:
            newest = open_backend(converter, name, chunk, cache)
        except RtvcError as error:
            refused[name] = str(error)
            continue
        rivals = [backends[0], *([best] if best is not backends[0] else []), newest]
        backends.append(newest)
        result = judged(rivals, refused, QUICK)
        if result["backend"] == name:
            best = newest
            yield best, result
    result = judged(backends, refused)
    remember(cache, key(converter, chunk, names), result)
    yield next(backend for backend in backends if backend.name == result["backend"]), result


def judged(backends: Sequence[Backend], refused: dict[str, str], steps: int = 40) -> dict[str, Any]:
    """Which holds the most sessions of those that sound like the first, and all figures; among
    equals the one whose step is shortest."""
    figures = compare(backends, steps)
    measured = {backend.name: each for backend, each in zip(backends, figures, strict=True)}
    faithful = [name for name, each in measured.items() if each["fidelity_db"] >= FIDELITY_DB]
    best = max(faithful, key=lambda name: (measured[name]["sessions"], -measured[name]["cpu_ms"]))
    return {"backend": best, "measured": measured, "refused": refused}


def choose(
    converter: Converter,
    chunk: int,
    *,
    cache: Path | None = None,
    candidates: Sequence[str] = CANDIDATES,
    again: bool = False,
) -> tuple[Backend, dict[str, Any]]:
    """The best backend of this machine, and what was measured; engines that are missing are built.

    Args:
        converter: the model.
        chunk: samples a step.
        cache: folder of engines and measurements; by default `cache_folder()`.
        candidates: names to try; `torch-eager` is always among them, as the reference.
        again: measure even if there is a memory.
    """
    cache = cache_folder() if cache is None else cache
    known = None if again else recall(cache, key(converter, chunk, worthwhile(candidates)))
    if known is not None:
        with contextlib.suppress(RtvcError):  # its package is gone or broken: measure anew
            return open_backend(converter, known["backend"], chunk, cache), known
    *_, last = contest(converter, chunk, cache=cache, candidates=candidates)
    return last
