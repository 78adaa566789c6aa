"""Every backend that is built: its class, the packages that it depends on, and what it is made
for."""

import platform
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rtvc import processor
from rtvc.engine.graph.gpu import need_gpu
from rtvc.engine.graph.target import Target
from rtvc.engine.tensorrt import flavours
from rtvc.errors import ConfigError, EngineError

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
            f"expected a backend among torch-eager, {', '.join(BACKENDS)}, got {name!r}"
        )
    return BACKENDS[name]


def machine() -> str:
    """What an engine's machine code depends on: the operating system, the architecture and the
    CPU's name."""
    name = next(iter(processor.told("model name")), platform.processor())
    return f"{platform.system()} {platform.machine()} {name}".strip()


def versions(backend: str, target: Target | None = None) -> dict[str, str]:
    """Versions of the packages that a backend's files depend on.

    Raises:
        EngineError: for a backend that is none.
    """
    installed = (
        flavours.versions(target.flavour) if backend == "tensorrt" and target is not None else {}
    )
    for package in entry(backend)[2]:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            installed[package] = "absent"
    return installed


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
                "expected a flavour of auto, tensorrt or rtx for the tensorrt backend, got cuda"
            )
        return flavours.resolve(target)
    if target.flavour not in ("auto", "cuda") or target.precision != "fp32":
        raise ConfigError(
            f"{target.flavour} in {target.precision} came for the backend {backend}, which steps as"
            " torch does, in fp32"
        )
    here = need_gpu(f"the {backend} backend")
    return target.model_copy(update={"flavour": "cuda", "capabilities": (here.capability,)})
