"""Which TensorRT serves a machine, and what is told where it is missing or of a wrong version."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rtvc.engine.graph.gpu import Gpu
from rtvc.engine.graph.target import Target, parse_batch
from rtvc.engine.tensorrt import flavours
from rtvc.errors import ConfigError, DependencyError, EngineError
from tests.support.gpus import on_machine

pytest.importorskip(
    "tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed: pip install 'rtvc-engine[rtx]'"
)
pytest.importorskip("onnxscript")


@pytest.fixture
def h100(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """A machine with a GPU that TensorRT-RTX does not serve."""
    found = Gpu("NVIDIA H100 80GB HBM3", "9.0")
    on_machine(monkeypatch, found)
    return found


def installed(monkeypatch: pytest.MonkeyPatch, **modules: Any) -> None:
    """Answers for the modules that are here."""

    def imported(name: str) -> Any:
        if name not in modules:
            raise ImportError(f"No module named {name!r}")
        return modules[name]

    monkeypatch.setattr(flavours, "import_module", imported)


def tensorrt_of(version: str, torch_tensorrt: str) -> dict[str, Any]:
    """The two modules of the flavour for data-center GPUs."""
    return {
        "tensorrt": SimpleNamespace(__version__=version, Builder=object),
        "torch_tensorrt": SimpleNamespace(__version__=torch_tensorrt),
    }


TORCH = ".".join(torch.__version__.split(".")[:2])


def test_targets_and_batches_that_cannot_be() -> None:
    assert parse_batch("1:16:256") == (1, 16, 256) and parse_batch("8") == (8, 8, 8)
    for text in ("4:2:8", "0:1:2", "1:2", "a:b:c", "-1"):
        with pytest.raises(ConfigError, match="MIN:OPT:MAX"):
            parse_batch(text)
    with pytest.raises(ValueError, match="MIN <= OPT <= MAX"):
        Target(batch=(3, 2, 1))
    assert Target(batch=(1, 16, 100)).rows == (1, 2, 4, 8, 16, 32, 64, 100) and Target(
        batch=(8, 8, 8)
    ).rows == (8,)


def test_every_missing_or_wrong_package_is_named(
    converter: Any, monkeypatch: pytest.MonkeyPatch, h100: Gpu
) -> None:
    cases: list[tuple[dict[str, Any], str, type[Exception], str]] = [
        ({}, "rtx", DependencyError, r"pip install 'rtvc-engine\[rtx\]'"),
        (
            {"tensorrt_rtx": SimpleNamespace(__version__="1.2.0.1")},
            "rtx",
            EngineError,
            r"TensorRT-RTX 1\.5 or a later 1\.x, got 1\.2\.0\.1",
        ),
        (
            {"tensorrt_rtx": SimpleNamespace(__version__="2.0.0")},
            "rtx",
            EngineError,
            r"TensorRT-RTX 1\.5 or a later 1\.x, got 2\.0\.0",
        ),
        (
            {},
            "tensorrt",
            DependencyError,
            r"needs TensorRT .*not on PyPI.*https://pypi\.nvidia\.com.*container",
        ),
        (
            {"tensorrt": SimpleNamespace(__version__="10.15")},
            "tensorrt",
            DependencyError,
            "a runtime without it is installed",
        ),
        (
            {"tensorrt": tensorrt_of("11.0.1", "")["tensorrt"]},
            "tensorrt",
            DependencyError,
            r"needs torch-tensorrt .*\[tensorrt\]",
        ),
        (
            tensorrt_of("10.15.1", "2.1.0"),
            "tensorrt",
            EngineError,
            rf"expected torch-tensorrt {TORCH}, .*, got 2\.1\.0",
        ),
        (
            tensorrt_of("9.3.0", f"{TORCH}.0"),
            "tensorrt",
            EngineError,
            r"expected TensorRT 1[01]\.[0-9]+ .*, got 9\.3\.0",
        ),
        (
            {},
            "auto",
            DependencyError,
            r"no TensorRT is installed.*rtvc-engine\[rtx\].*pypi\.nvidia\.com",
        ),
    ]
    for modules, flavour, error, message in cases:
        installed(monkeypatch, **modules)
        with pytest.raises(error, match=message):
            flavours.resolve(Target(flavour=flavour))  # type: ignore[arg-type]
    assert flavours.versions("tensorrt") == {
        "torch": torch.__version__,
        "tensorrt": "absent",
        "torch-tensorrt": "absent",
    }


def test_the_flavour_follows_the_machine(monkeypatch: pytest.MonkeyPatch, h100: Gpu) -> None:
    real = flavours.rtx()
    both = tensorrt_of(flavours.PAIRS.get(TORCH, "11.0"), f"{TORCH}.0")
    installed(monkeypatch, tensorrt_rtx=real, **both)
    assert flavours.resolve(Target()) == Target(
        flavour="tensorrt", capabilities=("9.0",), gpu=h100.name
    )
    with pytest.raises(
        EngineError,
        match=r"compute capability 8\.6 was asked for.*builds for the GPU here alone, NVIDIA H100",
    ):
        flavours.resolve(Target(flavour="tensorrt", capabilities=("8.6",)))
    with pytest.raises(EngineError, match=r"runs no kernels of others"):
        flavours.resolve(Target(flavour="rtx", kernels=True, capabilities=("8.6",)))
    installed(monkeypatch, tensorrt_rtx=real)
    with pytest.raises(
        EngineError,
        match=r"compute capability 9\.0 was asked for, TensorRT-RTX serves 7\.5, .*12\.0",
    ):
        flavours.resolve(Target())
    on_machine(monkeypatch, Gpu("NVIDIA GeForce RTX 4090", "8.9"))
    assert flavours.resolve(Target()).capabilities == ("8.9",)
    on_machine(monkeypatch, None)
    assert flavours.resolve(Target()).capabilities == flavours.PORTABLE
    installed(monkeypatch, **both)
    with pytest.raises(
        EngineError, match=r"building an engine with TensorRT .* needs an NVIDIA GPU"
    ):
        flavours.resolve(Target(flavour="tensorrt"))
