"""The two TensorRTs: which is installed, in which version, and which GPUs it serves.

TensorRT, for data-center GPUs, is driven by torch-tensorrt. TensorRT-RTX, for GeForce and RTX,
compiles without a GPU or driver what it finishes on the user's own GPU, and is an ordinary package.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from rtvc.engine.graph.gpu import gpu, need_gpu
from rtvc.engine.graph.target import Target
from rtvc.errors import DependencyError, EngineError

PAIRS = {"2.11": "10.15", "2.13": "11.0"}
"""TensorRT's version for a version of torch-tensorrt, which is itself made for the torch of the
same version."""
RTX_MODULES = ("tensorrt_rtx", "tensorrt_rtx_bindings")
RTX_OLDEST, RTX_NEXT = (1, 5), (2, 0)
PORTABLE = ("8.6", "8.9", "12.0")
"""GeForce RTX 30, 40 and 50: what TensorRT-RTX builds for where no GPU says otherwise."""
WHERE = (
    "its compiler is not on PyPI: pip install --extra-index-url https://pypi.nvidia.com tensorrt"
    " torch-tensorrt, or the archive of https://developer.nvidia.com/tensorrt, or NVIDIA's PyTorch"
    " container, which holds both"
)


def short(text: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(
        int("".join(c for c in part if c.isdigit()) or 0)
        for part in text.split("+")[0].split(".")[:2]
    )


def rtx() -> Any:
    """TensorRT-RTX's module.

    Raises:
        DependencyError: when it is not installed.
        EngineError: for a version that this code was not made for.
    """
    for name in RTX_MODULES:
        try:
            package = import_module(name)
        except (ImportError, OSError):
            continue
        if not RTX_OLDEST <= short(package.__version__) < RTX_NEXT:
            raise EngineError(
                f"expected TensorRT-RTX 1.5 or a later 1.x, got {package.__version__}: pip install"
                " 'rtvc-engine[rtx]'"
            )
        return package
    raise DependencyError("the rtx flavour needs TensorRT-RTX: pip install 'rtvc-engine[rtx]'")


def full() -> tuple[Any, Any]:
    """TensorRT's and torch-tensorrt's modules.

    Raises:
        DependencyError: when either is not installed, or only TensorRT's bindings are.
        EngineError: for versions that do not belong together.
    """
    try:
        tensorrt = import_module("tensorrt")
    except (ImportError, OSError) as error:
        raise DependencyError(f"the tensorrt flavour needs TensorRT ({error}): {WHERE}") from error
    if not hasattr(tensorrt, "Builder"):
        raise DependencyError(
            "the tensorrt flavour needs TensorRT's compiler, a runtime without it is installed:"
            f" {WHERE}"
        )
    try:
        torch_tensorrt = import_module("torch_tensorrt")
    except (
        ImportError,
        OSError,
        AssertionError,
        RuntimeError,
    ) as error:  # a torch without CUDA fails in several ways
        raise DependencyError(
            f"the tensorrt flavour needs torch-tensorrt ({str(error)[:200]}): pip install"
            " 'rtvc-engine[tensorrt]'"
        ) from error
    own = ".".join(torch_tensorrt.__version__.split(".")[:2])
    if short(own) != short(torch.__version__):
        raise EngineError(
            f"expected torch-tensorrt {'.'.join(map(str, short(torch.__version__)))}, the version"
            f" of torch here, got {torch_tensorrt.__version__}: pip install"
            f" 'torch-tensorrt=={'.'.join(map(str, short(torch.__version__)))}.*'"
        )
    if own in PAIRS and short(tensorrt.__version__) != short(PAIRS[own]):
        raise EngineError(
            f"expected TensorRT {PAIRS[own]} for torch-tensorrt {torch_tensorrt.__version__}, got"
            f" {tensorrt.__version__}: pip install --extra-index-url https://pypi.nvidia.com"
            f" 'tensorrt=={PAIRS[own]}.*'"
        )
    return tensorrt, torch_tensorrt


def versions(flavour: str) -> dict[str, str]:
    """The versions that an engine of a flavour depends on; `absent` where a package is missing."""
    installed: dict[str, str] = (
        {} if flavour == "rtx" else {"torch": str(torch.__version__)}
    )  # which only wrote the graph for rtx
    for name in {"tensorrt": ("tensorrt", "torch-tensorrt"), "rtx": ("tensorrt-rtx",)}.get(
        flavour, ()
    ):
        try:
            installed[name] = rtx().__version__ if name == "tensorrt-rtx" else version(name)
        except (PackageNotFoundError, DependencyError):
            installed[name] = "absent"
    return installed


def known(trt: Any) -> dict[str, Any]:
    """Compute capabilities that this TensorRT-RTX compiles for, as `8.6`, and their names in its
    interface."""
    members = trt.ComputeCapability.__members__
    return {
        f"{name[2:-1]}.{name[-1]}": member
        for name, member in members.items()
        if name.startswith("SM")
    }


def resolve(target: Target) -> Target:
    """A target whose flavour and GPUs are settled.

    Raises:
        DependencyError: when a flavour is not installed.
        EngineError: when it needs a GPU that is not here, or does not serve the one that is.
    """
    here = gpu()
    if target.flavour == "auto":
        target = target.model_copy(update={"flavour": choose()})
    if target.flavour == "tensorrt":
        full()
        one = need_gpu("building an engine with TensorRT (the rtx flavour builds without)")
        if target.capabilities not in ((), (one.capability,)):
            asked = ", ".join(target.capabilities)
            raise EngineError(
                f"an engine for compute capability {asked} was asked for, TensorRT builds for the"
                f" GPU here alone, {one.name} ({one.capability}): build it there, or use"
                " --flavour rtx"
            )
        return target.model_copy(update={"capabilities": (one.capability,), "gpu": one.name})
    no_kernels(target)
    capabilities = target.capabilities or ((here.capability,) if here else PORTABLE)
    served = known(rtx())
    for capability in capabilities:
        if capability not in served:
            raise EngineError(
                f"compute capability {capability} was asked for, TensorRT-RTX serves"
                f" {', '.join(served)}: use --flavour tensorrt, or --backend cudagraph"
            )
    return target.model_copy(update={"capabilities": capabilities})


def no_kernels(target: Target) -> None:
    """Refuses our own kernels where torch cannot step in between two engines.

    Raises:
        EngineError: for TensorRT-RTX with them.
    """
    if target.flavour == "rtx" and target.kernels:
        raise EngineError(
            "TensorRT-RTX runs no kernels of others: build without --kernels, or use --flavour"
            " tensorrt"
        )


def choose() -> str:
    """The flavour for this machine: TensorRT where it is installed and a GPU is here, else
    TensorRT-RTX.

    Raises:
        DependencyError: when neither is installed.
    """
    if gpu() is not None:
        try:
            full()
            return "tensorrt"
        except DependencyError:
            pass
    try:
        rtx()
        return "rtx"
    except DependencyError as error:
        raise DependencyError(
            "no TensorRT is installed. For GeForce and RTX: pip install 'rtvc-engine[rtx]'. For"
            f" other GPUs: {WHERE}"
        ) from error


def fits(target: Target, directory: object, again: str) -> None:
    """Refuses an engine whose target is not the GPU here.

    Raises:
        EngineError: saying what it was made for, and to build again.
    """
    here = need_gpu(f"the engine in {directory}")
    if here.capability not in target.capabilities:
        built_for = ", ".join(target.capabilities)
        raise EngineError(
            f"the engine in {directory} was made for GPUs of compute capability {built_for}, here"
            f" is {here.name} ({here.capability}): {again}"
        )
    if target.gpu and target.gpu != here.name:
        raise EngineError(
            f"the engine in {directory} was made on the GPU {target.gpu}, here is {here.name}:"
            f" {again}"
        )
