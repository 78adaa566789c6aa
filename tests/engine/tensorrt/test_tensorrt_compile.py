"""torch-tensorrt's path and the commands that build, on a compiler that notes what it is asked."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from rtvc.engine.backends import tensorrt as backend_module
from rtvc.engine.backends.double_buffer import direct
from rtvc.engine.backends.eager import TorchBackend
from rtvc.engine.backends.tensorrt import PROGRAM, TensorrtBackend, graph
from rtvc.engine.build import build
from rtvc.engine.cached import load
from rtvc.engine.graph.gpu import Gpu
from rtvc.engine.graph.target import Target
from rtvc.engine.tensorrt import dynamo, flavours, plan
from rtvc.errors import ConfigError, EngineError
from rtvc.layers.synthesis import Istft
from tests.support.converters import DelayConverter, TestVoice, TinyConverter

CHUNK = 600
TARGET = Target(flavour="tensorrt", batch=(1, 4, 8), capabilities=("9.0",), gpu="NVIDIA H100")


def of_another_architecture(*_: Any, **__: Any) -> Any:
    """A refit that cannot be."""
    raise AssertionError("The number of weights is different")


class Compiler:
    """torch-tensorrt, as far as it is used: the program itself stands for what it compiles."""

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.refitted = 0
        self.dynamo = SimpleNamespace(compile=self.compile, refit_module_weights=self.refit)
        self.__version__ = f"{'.'.join(torch.__version__.split('.')[:2])}.0"

    @staticmethod
    def Input(**ranges: Any) -> dict[str, Any]:
        return ranges

    def compile(self, program: Any, **settings: Any) -> Any:
        if settings["arg_inputs"][0].get("shape") == (5, 1, CHUNK):
            raise RuntimeError("[TRT] out of\nideas")
        self.settings = settings
        return program

    def save(
        self,
        compiled: Any,
        path: str,
        *,
        output_format: str,
        arg_inputs: list[Tensor],
        dynamic_shapes: Any,
    ) -> None:
        assert output_format == "exported_program" and len(arg_inputs) == 3
        self.rows, self.shapes = len(arg_inputs[0]), dynamic_shapes
        torch.export.save(compiled, path)

    def load(self, path: str) -> Any:
        return torch.export.load(path)

    def refit(
        self, compiled: Any, program: Any, *, arg_inputs: tuple[Tensor, ...], verify_output: bool
    ) -> Any:
        assert verify_output and len(arg_inputs[0]) == 4
        if set(compiled.state_dict) != set(program.state_dict):
            raise AssertionError("other weights")
        self.refitted += 1
        return program


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Compiler:
    """A machine with an H100 and TensorRT, which is this one."""
    here, found = Gpu("NVIDIA H100", "9.0"), Compiler()
    monkeypatch.setattr(flavours, "gpu", lambda: here)
    monkeypatch.setattr(flavours, "full", lambda: (SimpleNamespace(), found))
    for module in (flavours, backend_module):
        monkeypatch.setattr(module, "need_gpu", lambda what: here)
    monkeypatch.setattr(dynamo, "on_gpu", lambda program: program)
    monkeypatch.setattr(backend_module, "timing_folder", lambda: tmp_path / "timings")
    real = TensorrtBackend.__init__
    monkeypatch.setattr(
        TensorrtBackend,
        "__init__",
        lambda *arguments: real(*arguments, device="cpu", record=direct),
    )
    return found


def test_torch_tensorrt_compiles_saves_and_refits(
    converter: Any, compiler: Compiler, tmp_path: Path
) -> None:
    ask = TARGET.model_copy(update={"capabilities": (), "gpu": "", "flavour": "auto"})
    manifest = build(converter, "tensorrt", tmp_path / "one", CHUNK, target=ask)
    assert manifest.target == TARGET and set(manifest.files) == {PROGRAM}
    assert set(manifest.versions) == {"torch", "tensorrt", "torch-tensorrt"}
    first = compiler.settings["arg_inputs"][0]
    assert (first["name"], first["min_shape"], first["opt_shape"], first["max_shape"]) == (
        "x",
        (1, 1, CHUNK),
        (4, 1, CHUNK),
        (8, 1, CHUNK),
    )
    chosen = {name: value for name, value in compiler.settings.items() if name != "arg_inputs"}
    assert (
        chosen["require_full_compilation"]
        and not chosen["immutable_weights"]
        and chosen["disable_tf32"]
        and not chosen["use_fp32_acc"]
    )
    assert chosen["cache_built_engines"] and chosen["reuse_cached_engines"]
    assert chosen["engine_cache_dir"] == str(tmp_path / "timings" / "engines")
    assert chosen["timing_cache_path"] == str(tmp_path / "timings" / "timing.bin")
    assert compiler.rows == 4 and len(compiler.shapes) == 3
    backend, eager = load(tmp_path / "one", converter), TorchBackend(converter, CHUNK)
    x, voice, state = (
        torch.randn(2, 1, CHUNK),
        eager.condition(TestVoice()).repeat(2, 1),
        eager.initial(2),
    )
    for got, right in zip(backend.step(x, voice, state), eager.step(x, voice, state), strict=True):
        torch.testing.assert_close(got, right)

    other: Any = TinyConverter(seed=5).eval()
    build(other, "tensorrt", tmp_path / "two", CHUNK, target=ask, refit=tmp_path / "one")
    assert compiler.refitted == 1
    renewed, eager = load(tmp_path / "two", other), TorchBackend(other, CHUNK)
    torch.testing.assert_close(renewed.step(x, voice, state)[0], eager.step(x, voice, state)[0])
    with pytest.raises(EngineError, match="made for the model"):
        load(tmp_path / "two", converter)
    with pytest.raises(
        EngineError, match=r"expected the target .*fp16.* has .*fp32.*: build anew, without --refit"
    ):
        build(
            other,
            "tensorrt",
            tmp_path / "three",
            CHUNK,
            target=ask.model_copy(update={"precision": "fp16"}),
            refit=tmp_path / "one",
        )
    compiler.dynamo.refit_module_weights = of_another_architecture
    with pytest.raises(
        EngineError,
        match=(
            r"cannot take these weights .The number of weights is different.: build the engine anew"
        ),
    ):
        build(other, "tensorrt", tmp_path / "three", CHUNK, target=ask, refit=tmp_path / "one")


def test_a_program_moves_as_a_copy(converter: Any) -> None:
    """torch-tensorrt wants it on the GPU; the one on the CPU stays, for the next build."""
    program = graph(converter, CHUNK, TARGET).program
    moved = dynamo.on_gpu(program, "meta")
    assert {tensor.device.type for tensor in moved.state_dict.values()} == {"meta"}
    assert {tensor.device.type for tensor in program.state_dict.values()} == {"cpu"}
    assert moved.example_inputs[0][0].device.type == "meta"


def test_a_fixed_batch_and_a_failing_compiler(
    converter: Any, compiler: Compiler, tmp_path: Path
) -> None:
    build(
        converter,
        "tensorrt",
        tmp_path / "one",
        CHUNK,
        target=Target(batch=(2, 2, 2), precision="fp16", kernels=True),
    )
    assert compiler.settings["arg_inputs"][0]["shape"] == (2, 1, CHUNK) and compiler.shapes is None
    assert compiler.settings["use_fp32_acc"] and not compiler.settings["require_full_compilation"]
    with pytest.raises(
        EngineError,
        match=r"TensorRT cannot build this model \(\[TRT\] out of ideas\): see rtvc build --plan",
    ):
        build(converter, "tensorrt", tmp_path / "two", CHUNK, target=Target(batch=(5, 5, 5)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "timings"]


def test_the_converters_of_torch_tensorrt_are_asked(
    converter: Any, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With our kernels in the graph they are the breaks, and the reason is said."""
    import sys

    class Registry:
        """Converts what is not a tanh, when it is asked for what can be refitted."""

        asked: Any = None

        def set_compilation_settings(self, settings: Any) -> None:
            self.asked = settings

        def __contains__(self, node: Any) -> bool:
            return (
                self.asked == {"immutable_weights": False}
                and "tanh" not in str(node.target)
                and "rtvc" not in str(node.target)
            )

    held: dict[str, dict[str, Any]] = {
        "torch_tensorrt.dynamo.conversion._ConverterRegistry": {"DYNAMO_CONVERTERS": Registry()},
        "torch_tensorrt.dynamo": {"CompilationSettings": dict},
        "torch_tensorrt.dynamo.lowering": {"get_decompositions": dict},
    }
    for name, members in held.items():
        parts = name.split(".")
        for end in range(1, len(parts)):
            if ".".join(parts[:end]) not in sys.modules:
                monkeypatch.setitem(sys.modules, ".".join(parts[:end]), SimpleNamespace())
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**members))
    found = plan.plan(graph(converter, CHUNK, TARGET), TARGET)
    assert found.judge == f"the converters of torch-tensorrt {compiler.__version__}"
    assert found.falls == {"aten.tanh.default": (2, "torch-tensorrt has no converter for it")}
    assert found.converts["aten.linear.default"] == 2


def test_the_command_line_builds_and_refuses(
    converter: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from rtvc.cli import main

    monkeypatch.setattr("rtvc.engine.loading.streaming", lambda *chosen: (None, converter))
    for arguments, message in [
        (
            "--backend tensorrt --precision bf16",
            "expected --precision to be one of fp32, fp16, got bf16",
        ),
        (
            "--backend tensorrt --flavour trt",
            "expected --flavour to be one of auto, tensorrt, rtx, got trt",
        ),
        ("--backend tensorrt --batch 4:2", "expected a batch MIN:OPT:MAX"),
        ("--backend auto --batch 1:2:4", "name --backend tensorrt or cudagraph"),
        ("--backend onnx --plan", "--plan came with --backend onnx, which converts no operators"),
        ("--backend onnx --precision fp16", "a target for GPUs came for the backend onnx"),
        ("--backend tensorrt --flavour rtx --kernels", "TensorRT-RTX runs no kernels of others"),
    ]:
        assert main(["build", *arguments.split(), "-o", str(tmp_path / "engine")]) == 2
        assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    pytest.importorskip(
        "tensorrt_rtx_bindings",
        reason="TensorRT-RTX is not installed: pip install 'rtvc-engine[rtx]'",
    )
    folder = tmp_path / "engine"
    command = [
        "build",
        "--backend",
        "tensorrt",
        "--flavour",
        "rtx",
        "--capabilities",
        "8.6, 8.9",
        "--batch",
        "1:2:4",
        "-o",
        str(folder),
    ]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert said.startswith(
        f"{folder}: tensorrt, 25 ms steps, rtx fp32 for 1 to 4 sessions on compute capability 8.6,"
        " 8.9, model "
    )
    assert main([*command, "--plan"]) == 0
    said = capsys.readouterr().out
    assert "operators convert (the ONNX parser of TensorRT-RTX" in said and "falls back" not in said


def test_an_engine_opens_by_its_directory(
    converter: Any, compiler: Compiler, tmp_path: Path
) -> None:
    from rtvc.engine.open import open_engine

    build(converter, "tensorrt", tmp_path / "one", CHUNK, target=Target(batch=(1, 2, 4)))
    opened, _ = open_engine(converter, str(tmp_path / "one"))
    assert isinstance(opened, TensorrtBackend) and opened.batches == (1, 2, 4)
    with pytest.raises(
        ConfigError, match=r"a chunk of 300 samples came, the engine in .* steps 600"
    ):
        open_engine(converter, str(tmp_path / "one"), 300)


class Spectral(DelayConverter):
    """Takes its input for spectra: its only layer is one that a kernel of ours stands in for."""

    def __init__(self) -> None:
        super().__init__()
        self.synthesis = Istft(4, 2)

    def initial(self, batch: int) -> Any:
        return self.synthesis.initial(batch)

    def forward(self, x: Tensor, voice: Tensor, state: Any) -> tuple[Tensor, Any]:
        y, state = self.synthesis(x.reshape(x.shape[0], 6, -1) * voice[:, :, None], state)
        return y, state


def test_without_torch_tensorrt_kernels_are_told_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rtvc.cli import main

    monkeypatch.setattr("rtvc.engine.loading.streaming", lambda *chosen: (None, Spectral()))
    assert (
        main(
            [
                "build",
                "--backend",
                "tensorrt",
                "--flavour",
                "tensorrt",
                "--kernels",
                "--plan",
                "--json",
            ]
        )
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert (
        found["falls"] == {"rtvc.istft.default": {"count": 1, "reason": plan.KERNEL}}
        and found["converts"]
    )
