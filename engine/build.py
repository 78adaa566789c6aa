"""Engine directories: a compiled step with a manifest that says what it was made of, checked
whenever it is loaded."""

import hashlib
import os
import platform
import shutil
import tempfile
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from rtvc.engine.backends.base import Backend, Layout
from rtvc.engine.backends.eager import TorchBackend
from rtvc.engine.graph.export import voice_size, weights
from rtvc.engine.graph.gpu import need_gpu
from rtvc.engine.graph.manifest import (
    ANSWERS,
    FORMAT,
    MANIFEST,
    MOST_CHUNK,
    Manifest,
    read_manifest,
)
from rtvc.engine.graph.target import Target
from rtvc.engine.tensorrt import flavours
from rtvc.errors import ConfigError, EngineError
from rtvc.files import TEMPORARY, check_folder
from rtvc.models.streaming.interface import Converter

ANSWER = 0.01
"""Largest difference of an answer, as a share of its largest value, that is put down to another
machine's rounding."""
BACKENDS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "torch-compile": ("rtvc.engine.backends.compiled", "CompiledBackend", ("torch",)),
    "onnx": ("rtvc.engine.backends.onnx", "OnnxBackend", ("onnxruntime",)),
    "onnx-int8": ("rtvc.engine.backends.onnx", "OnnxInt8Backend", ("onnxruntime",)),
    "openvino": ("rtvc.engine.backends.openvino", "OpenvinoBackend", ("openvino",)),
    "openvino-bf16": ("rtvc.engine.backends.openvino", "OpenvinoBf16Backend", ("openvino",)),
    "openvino-int8": ("rtvc.engine.backends.openvino", "OpenvinoInt8Backend", ("openvino",)),
    "cudagraph": ("rtvc.engine.backends.cudagraph", "CudaGraphBackend", ("torch",)),
    "tensorrt": ("rtvc.engine.backends.tensorrt", "TensorrtBackend", ()),
}
"""Backends that are built, by name: module, class, and the packages whose versions its files depend
on (TensorRT's: by flavour)."""
GPU_BACKENDS = {
    "cudagraph": Target(flavour="cuda", batch=(1, 16, 1024), kernels=True),
    "tensorrt": Target(),
}
"""Those that run on a GPU, and what they are made for unless another target is named."""
ALIASES = {"compile": "torch-compile", "eager": "torch-eager"}


def backend_class(name: str) -> Any:
    """The class of a backend that is built.

    Raises:
        EngineError: for a name that is none.
    """
    name = ALIASES.get(name, name)
    module, cls, _ = entry(name)
    return getattr(import_module(module), cls)


def entry(name: str) -> tuple[str, str, tuple[str, ...]]:
    """What `BACKENDS` says of a name.

    Raises:
        EngineError: for a name that is none.
    """
    if name not in BACKENDS:
        raise EngineError(
            f"the backend {name!r} came, one of torch-eager, {', '.join(BACKENDS)} was wanted"
        )
    return BACKENDS[name]


def model_hash(converter: Converter) -> str:
    """SHA-256 over the names, shapes and values of all weights, as hexadecimal."""
    digest = hashlib.sha256(type(converter).__name__.encode())
    for name, tensor in sorted(weights(converter).items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(
            tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()


def answer(converter: Converter, chunk: int) -> list[float]:
    """What the converter itself says to a fixed signal: tells code that changed under unchanged
    weights; 32 numbers."""
    generator = torch.Generator().manual_seed(1)
    acoustic, prosodic, x = (
        torch.randn(*shape, generator=generator) * 0.1
        for shape in ((1, 128), (1, 128), (4, 1, 1, chunk))
    )
    with torch.inference_mode():
        voice, state = converter.condition(acoustic, prosodic), converter.initial(1)
        for block in x:
            y, state = converter(block, voice, state)
    return [float(value) for value in y[0, 0, :: max(1, chunk // ANSWERS)][:ANSWERS]]


def file_hash(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def machine() -> str:
    """What an engine's machine code depends on: the operating system, the architecture and the
    CPU's name."""
    name = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = [
            line.split(":", 1)[1].strip()
            for line in cpuinfo.read_text().splitlines()
            if line.startswith("model name")
        ]
        name = lines[0] if lines else name
    return f"{platform.system()} {platform.machine()} {name}".strip()


def versions(backend: str, target: Target | None = None) -> dict[str, str]:
    """Versions of the packages that a backend's files depend on.

    Raises:
        EngineError: for a backend that is none.
    """
    found = (
        flavours.versions(target.flavour) if backend == "tensorrt" and target is not None else {}
    )
    for package in entry(backend)[2]:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def resolve(backend: str, target: Target | None) -> Target | None:
    """The target of a backend with everything settled that this machine settles; None for a backend
    of the CPU.

    Raises:
        ConfigError: for a target that the backend has no use for.
        EngineError: without a GPU where one is needed, or for GPUs that the backend does not serve.
        DependencyError: when the flavour's packages are not installed.
    """
    if backend not in GPU_BACKENDS:
        if target is not None and target != Target():
            raise ConfigError(
                f"a target for GPUs came for the backend {backend}: leave precision, batch and"
                " flavour away, or use --backend tensorrt"
            )
        return None
    target = GPU_BACKENDS[backend] if target is None else target
    if backend == "tensorrt":
        if target.flavour == "cuda":
            raise ConfigError(
                "the flavour cuda came for the tensorrt backend, auto, tensorrt or rtx was wanted"
            )
        return flavours.resolve(target)
    if target.flavour not in ("auto", "cuda") or target.precision != "fp32":
        raise ConfigError(
            f"{target.flavour} in {target.precision} came for the backend {backend}, which steps as"
            " torch does, in fp32"
        )
    here = need_gpu(f"the {backend} backend")
    return target.model_copy(update={"flavour": "cuda", "capabilities": (here.capability,)})


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
            f"a chunk of {chunk} samples came, at most {MOST_CHUNK} were wanted: engines are for"
            " live streams"
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


def refittable(
    directory: Path, backend: str, target: Target | None, chunk: int, converter: Converter
) -> Path:
    """An engine directory whose engine may take the converter's weights.

    Raises:
        EngineError: when it was built for anything but other weights.
    """
    manifest = read_manifest(directory)
    size = Layout.of(converter.initial(1)).size
    facts = {
        "backend": (manifest.backend, backend),
        "target": (manifest.target, target),
        "chunk": (manifest.chunk, chunk),
        "state size": (manifest.state, size),
        "versions": (manifest.versions, versions(backend, target)),
    }
    for what, (came, wanted) in facts.items():
        if came != wanted:
            raise EngineError(
                f"the engine in {directory} has the {what} {came}, {wanted} is wanted: build anew,"
                " without --refit"
            )
    for name, digest in manifest.files.items():
        if not (directory / name).is_file() or file_hash(directory / name) != digest:
            raise EngineError(
                f"the file {name} of the engine in {directory} is missing or was changed: build"
                " anew, without --refit"
            )
    return directory


def check(manifest: Manifest, converter: Converter, directory: Path) -> None:
    """Refuses an engine that is not of this model, these versions, this machine, or whose files
    changed.

    Raises:
        EngineError: saying which, and to build again.
    """
    layout = Layout.of(converter.initial(1))
    again = f"build it again: rtvc build --backend {manifest.backend} -o {directory}"
    if (manifest.target is not None) != (manifest.backend in GPU_BACKENDS):
        raise EngineError(
            f"the manifest of the engine in {directory} does not fit the backend"
            f" {manifest.backend}: {again}"
        )
    facts = {
        "model": (manifest.model[:12], model_hash(converter)[:12]),
        "state size": (manifest.state, layout.size),
        "sample rate": (manifest.sample_rate, converter.sample_rate),
        "hop": (manifest.hop, converter.hop),
        "latency": (manifest.latency, converter.latency),
        "versions": (manifest.versions, versions(manifest.backend, manifest.target)),
        "machine": (manifest.machine, "any" if manifest.machine == "any" else machine()),
    }
    for what, (came, wanted) in facts.items():
        if came != wanted:
            raise EngineError(
                f"the engine in {directory} was made for the {what} {came}, here it is {wanted}:"
                f" {again}"
            )
    said, scale = answer(converter, manifest.chunk), max(map(abs, manifest.answer), default=1.0)
    apart = max((abs(a - b) for a, b in zip(said, manifest.answer, strict=False)), default=0.0)
    if len(said) != len(manifest.answer) or apart > ANSWER * max(scale, 1e-6):
        raise EngineError(
            f"the engine in {directory} was made by another version of the model's code: {again}"
        )
    for name, digest in manifest.files.items():
        if not (directory / name).is_file() or file_hash(directory / name) != digest:
            raise EngineError(
                f"the file {name} of the engine in {directory} is missing or was changed: {again}"
            )
    if manifest.target is not None:
        flavours.fits(manifest.target, directory, again)


def check_target(manifest: Manifest, target: Target, directory: Path) -> None:
    """Refuses an engine that was built with another precision, or for fewer rows, than is asked
    for.

    Raises:
        EngineError: saying which.
    """
    made = manifest.target or Target()
    if made.precision != target.precision:
        raise EngineError(
            f"the engine in {directory} computes in {made.precision}, {target.precision} is asked"
            f" for: build it again with --precision {target.precision}"
        )
    if made.batch[0] > target.batch[0] or made.batch[2] < target.batch[2]:
        wanted = ":".join(map(str, target.batch))
        raise EngineError(
            f"the engine in {directory} takes {made.batch[0]} to {made.batch[2]} rows,"
            f" {target.batch[0]} to {target.batch[2]} are asked for: build it again with --batch"
            f" {wanted}"
        )


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
    made = () if manifest.target is None else (manifest.target,)
    backend: Backend = cls(converter, manifest.chunk, directory, *made)
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
    stem = f"{model_hash(converter)[:12]}"
    directory = cache / (
        f"{stem}-{name}-{chunk}" + (f"-{target.label}" if target is not None else "")
    )
    try:
        return load(directory, converter, target)
    except EngineError:
        shutil.rmtree(directory, ignore_errors=True)
        source = graph(cache / f"{stem}-onnx-{chunk}", converter)
        build(converter, name, directory, chunk, source, target=target)
    return load(directory, converter, target)
