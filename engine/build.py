"""Building: a converter's step is compiled into a directory with a manifest that says what it was
made of."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from rtvc.engine.backends.base import Backend
from rtvc.engine.graph.export import voice_size
from rtvc.engine.graph.manifest import FORMAT, MANIFEST, MOST_CHUNK, Manifest
from rtvc.engine.graph.target import Target
from rtvc.engine.identity import answer, file_hash, model_hash, refittable
from rtvc.engine.registry import ALIASES, backend_class, machine, resolve, versions
from rtvc.errors import EngineError
from rtvc.files import TEMPORARY, check_folder
from rtvc.models.streaming.interface import Converter


def build(
    converter: Converter,
    backend: str,
    directory: Path,
    chunk: int,
    source: Path | None = None,
    *,
    target: Target | None = None,
    refit: Path | None = None,
) -> Manifest:
    """Compiles a converter's step into a directory, which appears only when it is complete.

    Args:
        converter: the model.
        backend: a name out of `BACKENDS`.
        directory: where to; an engine that is there already is replaced.
        chunk: samples a step.
        source: an ONNX file of the same step from an engine built before.
        target: what an engine for a GPU is made for; by default the backend's in `GPU_BACKENDS`.
        refit: a TensorRT engine of the same architecture and target that only needs new weights.

    Raises:
        ConfigError: for a target that does not fit the backend.
        EngineError: for an unknown backend, a chunk that does not fit, a directory that holds
            something else, or without a GPU where one is needed.
        DependencyError: when the backend's packages are not installed.
    """
    backend = ALIASES.get(backend, backend)
    cls = backend_class(backend)
    check_folder(directory)
    if directory.exists() and any(directory.iterdir()) and not (directory / MANIFEST).is_file():
        raise EngineError(
            f"{directory} holds files that are no engine: name an empty or new directory"
        )
    checked = Backend(converter, chunk)
    if chunk > MOST_CHUNK:
        raise EngineError(
            f"expected a chunk of at most {MOST_CHUNK} samples, got {chunk}: engines are for live"
            " streams"
        )
    target = resolve(backend, target)
    extra: dict[str, Any] = {} if target is None else {"target": target}
    if refit is not None:
        extra["refit"] = refittable(refit, backend, target, chunk, converter)
    place = Path(os.path.realpath(directory))
    place.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=place.parent))
    try:
        cls.build(converter, chunk, work, source, **extra)
        manifest = Manifest(
            format=FORMAT,
            backend=backend,
            model=model_hash(converter),
            chunk=chunk,
            sample_rate=converter.sample_rate,
            hop=converter.hop,
            latency=converter.latency,
            state=checked.layout.size,
            voice=voice_size(converter),
            answer=answer(converter, chunk),
            machine=machine() if backend == "torch-compile" else "any",
            versions=versions(backend, target),
            files={path.name: file_hash(path) for path in sorted(work.iterdir()) if path.is_file()},
            target=target,
        )
        (work / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
        if place.exists():
            shutil.rmtree(place)
        os.replace(work, place)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return manifest
