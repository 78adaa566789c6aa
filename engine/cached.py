"""Engine directories that are there already: loaded only if they fit, built anew in the cache if
they do not."""

import shutil
from pathlib import Path

from rtvc.engine.backends.base import Backend
from rtvc.engine.backends.eager import TorchBackend
from rtvc.engine.build import build
from rtvc.engine.graph.gpu import need_gpu
from rtvc.engine.graph.manifest import read_manifest
from rtvc.engine.graph.target import Target
from rtvc.engine.identity import check, check_target, model_hash
from rtvc.engine.registry import ALIASES, GPU_BACKENDS, backend_class, resolve
from rtvc.errors import EngineError, RtvcError
from rtvc.models.streaming.interface import Converter


def load(directory: Path, converter: Converter, target: Target | None = None) -> Backend:
    """The backend that an engine directory holds.

    Args:
        directory: of the engine.
        converter: the model.
        target: precision and rows that the caller counts on; None takes what is there.

    Raises:
        EngineError: when it is missing, damaged, stale, or made for another model, machine, GPU,
            precision or batch.
        DependencyError: when its packages are not installed.
    """
    manifest = read_manifest(directory)
    cls = backend_class(manifest.backend)
    check(manifest, converter, directory)
    if target is not None:
        check_target(manifest, target, directory)
    targets = () if manifest.target is None else (manifest.target,)
    backend: Backend = cls(converter, manifest.chunk, directory, *targets)
    return backend


def graph(directory: Path, converter: Converter) -> Path | None:
    """The ONNX file of an engine directory, if it is one of this very model."""
    try:
        check(read_manifest(directory), converter, directory)
    except EngineError:
        return None
    return directory / "step.onnx"


def open_backend(
    converter: Converter, name: str, chunk: int, cache: Path, target: Target | None = None
) -> Backend:
    """A backend by name: `torch-eager` as it is, any other from the cache, built when it is missing
    or stale.

    Args:
        converter: the model.
        name: of the backend.
        chunk: samples a step.
        cache: folder of engines, one a model, backend, chunk and target.
        target: what an engine for a GPU is made for; by default the backend's in `GPU_BACKENDS`.

    Raises:
        ConfigError: for a target that does not fit the backend.
        EngineError: for an unknown backend, or without a GPU where one is needed.
        DependencyError: when the backend's packages are not installed.
    """
    name = ALIASES.get(name, name)
    if name == TorchBackend.name:
        return TorchBackend(converter, chunk)
    backend_class(name)
    if name in GPU_BACKENDS:
        need_gpu(f"the {name} backend")
    target = resolve(name, target)
    directory = place(converter, name, chunk, cache, target)
    try:
        return load(directory, converter, target)
    except EngineError:
        shutil.rmtree(directory, ignore_errors=True)
        source = graph(place(converter, "onnx", chunk, cache), converter)
        build(converter, name, directory, chunk, source, target=target)
    return load(directory, converter, target)


def place(
    converter: Converter, name: str, chunk: int, cache: Path, target: Target | None = None
) -> Path:
    """The directory of an engine in the cache."""
    label = "" if target is None else f"-{target.label}"
    return cache / f"{model_hash(converter)[:12]}-{name}-{chunk}{label}"


def prebuilt(converter: Converter, name: str, chunk: int, cache: Path) -> Backend | None:
    """A backend of the CPU that needs no building: torch eager, or one from the cache if it is
    there and fits."""
    if name == TorchBackend.name:
        return TorchBackend(converter, chunk)
    try:
        return load(place(converter, name, chunk, cache), converter)
    except RtvcError:
        return None
