"""Running TensorRT engines against stand-ins that note what they are asked."""

from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from rtvc.engine.backends.double_buffer import direct
from rtvc.engine.backends.eager import TorchBackend
from rtvc.engine.backends.tensorrt import TensorrtBackend
from rtvc.engine.graph.target import Target
from rtvc.engine.tensorrt.running import ModuleRunner, RtxRunner
from rtvc.errors import EngineError
from tests.support.converters import TestVoice

CHUNK = 600
TARGET = Target(flavour="tensorrt", batch=(1, 4, 8), capabilities=("9.0",), gpu="NVIDIA H100")


class Severity(Enum):
    """Of a log line."""

    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2


class Mode(Enum):
    """Of a tensor."""

    INPUT = 1
    OUTPUT = 2


class Context:
    """Takes shapes and addresses of rows up to 8, and steps `behind` on the memory that it was
    shown."""

    def __init__(self, behind: TorchBackend, calls: list[Any]) -> None:
        self.behind, self.calls, self.shapes, self.addresses = (
            behind,
            calls,
            dict[str, Any](),
            dict[str, int](),
        )

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.calls.append(("shape", name, shape))
        self.shapes[name] = shape
        return shape[0] <= 8

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.calls.append(("address", name))
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        self.calls.append(("execute", stream))
        shapes = self.shapes | {"y": self.shapes["x"], "next": self.shapes["state"]}
        memory = {name: view(address, shapes[name]) for name, address in self.addresses.items()}
        y, after = self.behind.step(memory["x"], memory["voice"], memory["state"])
        memory["y"].copy_(y)
        memory["next"].copy_(after)
        return stream >= 0


def view(address: int, shape: tuple[int, ...]) -> Tensor:
    """The float32 values that lie at an address."""
    import ctypes
    import math

    memory = (ctypes.c_float * math.prod(shape)).from_address(address)
    return torch.frombuffer(memory, dtype=torch.float32).reshape(shape)


def fake_rtx(
    behind: TorchBackend,
    calls: list[Any],
    names: tuple[str, ...] = ("state", "voice", "x", "next", "y"),
) -> Any:
    """TensorRT-RTX with one engine, whose tensors come in its own order."""

    class Logger:
        """What the real interface has loggers inherit from."""

        Severity = Severity

    class Cache:
        """Finished kernels."""

        def deserialize(self, data: bytes) -> None:
            calls.append(("cache", data))

        def serialize(self) -> bytes:
            return b"kernels"

    config = SimpleNamespace(create_runtime_cache=Cache, set_runtime_cache=lambda cache: None)
    engine = SimpleNamespace(
        num_io_tensors=len(names),
        get_tensor_name=lambda index: names[index],
        get_tensor_mode=lambda name: Mode.OUTPUT if name in ("y", "next") else Mode.INPUT,
        create_runtime_config=lambda: config,
        create_execution_context=lambda config: Context(behind, calls),
    )

    class Runtime:
        """Loads engines that begin as one."""

        def __init__(self, sink: Any) -> None:
            self.sink = sink

        def deserialize_cuda_engine(self, data: bytes) -> Any:
            if data.startswith(b"engine"):
                return engine
            self.sink.log(Severity.WARNING, "not this")
            self.sink.log(Severity.ERROR, "bad magic\nnumber")
            return None

    return SimpleNamespace(
        __version__="1.7.1",
        ILogger=Logger,
        Runtime=Runtime,
        TensorIOMode=Mode,
        DynamicShapesKernelSpecializationStrategy=SimpleNamespace(EAGER="eager"),
    )


def test_tensors_are_bound_by_name_and_address(converter: Any, tmp_path: Path) -> None:
    """Shapes and addresses in order, then one start on the current stream; the engine writes into
    our tensors."""
    eager, calls = TorchBackend(converter, CHUNK), list[Any]()
    (tmp_path / "step.engine").write_bytes(b"engine")
    runner = RtxRunner(fake_rtx(eager, calls), tmp_path / "step.engine", stream=lambda: 7)
    x, voice, state = (
        torch.randn(2, 1, CHUNK),
        eager.condition(TestVoice()).repeat(2, 1),
        torch.randn(2, eager.layout.size),
    )
    wanted = eager.step(x, voice, state)
    for got, right in zip(runner.run(x, voice, state), wanted, strict=True):
        torch.testing.assert_close(got, right)
    inputs = [
        call
        for name, shape in (("x", x.shape), ("voice", voice.shape), ("state", state.shape))
        for call in bound(name, shape)
    ]
    assert calls == [*inputs, ("address", "y"), ("address", "next"), ("execute", 7)]
    assert (tmp_path / "kernels.cache").read_bytes() == b"kernels"
    calls.clear()
    RtxRunner(fake_rtx(eager, calls), tmp_path / "step.engine", stream=lambda: 7)
    assert calls == [("cache", b"kernels")]
    y, after = torch.empty_like(x), torch.empty_like(state)
    for arguments, message in [
        ((x.double(), voice, state, y, after), r"float32 as x, got torch\.float64"),
        (
            (x, voice, state.mT.contiguous().mT, y, after),
            r"contiguous float32 as state, got torch\.float32 with strides \(1, 2\)",
        ),
        (
            (x.repeat(5, 1, 1), voice, state, y, after),
            r"x of shape \(10, 1, 600\) came, which this engine was not built for",
        ),
    ]:
        with pytest.raises(EngineError, match=message):
            runner.launch(*arguments)
    runner.stream = lambda: -1
    with pytest.raises(EngineError, match="did not start"):
        runner.launch(x, voice, state, y, after)


def bound(name: str, shape: torch.Size) -> list[Any]:
    """The two calls that bind an input."""
    return [("shape", name, tuple(shape)), ("address", name)]


def test_a_file_that_is_no_engine_of_a_step_is_refused(converter: Any, tmp_path: Path) -> None:
    eager = TorchBackend(converter, CHUNK)
    (tmp_path / "junk").write_bytes(b"junk")
    with pytest.raises(
        EngineError,
        match=r"TensorRT-RTX 1\.7\.1 cannot load .*junk \(bad magic number\): build it again",
    ):
        RtxRunner(fake_rtx(eager, []), tmp_path / "junk")
    (tmp_path / "other").write_bytes(b"engine")
    with pytest.raises(
        EngineError, match=r"inputs and outputs x, voice, state, y, next, .* has image, class"
    ):
        RtxRunner(fake_rtx(eager, [], ("image", "class")), tmp_path / "other")


@pytest.mark.parametrize("kind", ["rtx", "module"])
def test_the_backend_steps_and_streams(converter: Any, tmp_path: Path, kind: str) -> None:
    """Two chunks of three rows, by steps and by a stream on two state buffers."""
    eager = TorchBackend(converter, CHUNK)
    (tmp_path / "step.engine").write_bytes(b"engine")
    rtx = RtxRunner(fake_rtx(eager, []), tmp_path / "step.engine", stream=lambda: 0)
    runner = rtx if kind == "rtx" else ModuleRunner(eager.step)
    backend = TensorrtBackend(
        converter, CHUNK, tmp_path, TARGET, device="cpu", runner=runner, record=direct
    )
    assert backend.batches == (1, 2, 4, 8)
    voice, state = eager.condition(TestVoice()).repeat(3, 1), eager.initial(3)
    stream, mine = backend.stream(3), backend.initial(3)
    for _ in range(2):
        x = torch.randn(3, 1, CHUNK)
        wanted, state = eager.step(x, voice, state)
        got, mine = backend.step(x, voice, mine)
        torch.testing.assert_close(got, wanted)
        torch.testing.assert_close(stream(x, voice), wanted)
        torch.testing.assert_close(stream.state, state)
    for attempt in (
        lambda: backend.stream(9),
        lambda: backend.step(torch.zeros(9, 1, CHUNK), voice, state),
    ):
        with pytest.raises(EngineError, match="9 rows came, this engine takes 1 to 8"):
            attempt()
    if not torch.cuda.is_available():
        with pytest.raises(EngineError, match="running a TensorRT engine needs an NVIDIA GPU"):
            TensorrtBackend(converter, CHUNK, tmp_path, TARGET)
