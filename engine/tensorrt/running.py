"""Running engines: tensors of torch bound to TensorRT by their addresses, on torch's current
stream."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtvc.engine.tensorrt.rtx import Log
from rtvc.errors import EngineError
from rtvc.files import write

INPUTS, OUTPUTS = ("x", "voice", "state"), ("y", "next")
"""Names of what an engine of a step takes and gives, in the order of `launch`."""


def current_stream() -> int:
    """The handle of torch's current CUDA stream."""
    return int(torch.cuda.current_stream().cuda_stream)


class RtxRunner:
    """An engine file of TensorRT-RTX. Nothing is copied: it reads and writes the very tensors that
    it is given.

    Kernels are finished for the GPU here when a number of rows comes for the first time, and kept
    in a cache file beside the engine. For one thread at a time.

    Args:
        trt: TensorRT-RTX's module.
        engine: the engine file.
        stream: gives the handle of the stream to run on; tests have none.

    Raises:
        EngineError: when TensorRT refuses the file, or it is no engine of a step.
    """

    def __init__(self, trt: Any, engine: Path, stream: Callable[[], int] = current_stream) -> None:
        self.stream, self.file, self.kept = stream, engine.with_name("kernels.cache"), False
        self.log = Log(trt)
        self.runtime = trt.Runtime(self.log.sink)
        self.engine = self.runtime.deserialize_cuda_engine(engine.read_bytes())
        if self.engine is None:
            raise EngineError(
                f"TensorRT-RTX {trt.__version__} cannot load {engine} ({self.log.last}): build it"
                " again"
            )
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        inputs = {
            name for name in names if self.engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        }
        if inputs != set(INPUTS) or set(names) - inputs != set(OUTPUTS):
            raise EngineError(
                f"expected the inputs and outputs {', '.join(INPUTS + OUTPUTS)}, {engine} has"
                f" {', '.join(names)}: build it again"
            )
        config = self.engine.create_runtime_config()
        config.dynamic_shapes_kernel_specialization_strategy = (
            trt.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        self.cache = config.create_runtime_cache()
        if self.file.is_file():
            self.cache.deserialize(self.file.read_bytes())
        config.set_runtime_cache(self.cache)
        self.context = self.engine.create_execution_context(config)
        if self.context is None:
            raise EngineError(
                f"{engine} cannot run here ({self.log.last}): free GPU memory, or build it for"
                " fewer rows"
            )

    def launch(self, x: Tensor, voice: Tensor, state: Tensor, y: Tensor, after: Tensor) -> None:
        """Starts one step that reads the first three, (B, 1, N), (B, V) and (B, S), and writes the
        last two.

        Raises:
            EngineError: for tensors that an address alone cannot stand for, or when TensorRT
                refuses.
        """
        for name, tensor in zip(INPUTS + OUTPUTS, (x, voice, state, y, after), strict=True):
            if tensor.dtype != torch.float32 or not tensor.is_contiguous():
                raise EngineError(
                    f"expected contiguous float32 as {name}, got {tensor.dtype} with strides"
                    f" {tensor.stride()}"
                )
            if name in INPUTS and not self.context.set_input_shape(name, tuple(tensor.shape)):
                raise EngineError(
                    f"{name} of shape {tuple(tensor.shape)} came, which this engine was not built"
                    f" for ({self.log.last})"
                )
            self.context.set_tensor_address(name, tensor.data_ptr())
        if not self.context.execute_async_v3(self.stream()):
            raise EngineError(f"TensorRT-RTX did not start the step ({self.log.last})")
        self.keep()

    def run(self, x: Tensor, voice: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step into fresh tensors: y (B, 1, N) and the next state (B, S)."""
        inputs = x.contiguous(), voice.contiguous(), state.contiguous()
        y, after = torch.empty_like(inputs[0]), torch.empty_like(inputs[2])
        self.launch(*inputs, y, after)
        return y, after

    def keep(self) -> None:
        """Writes the finished kernels down, once; not while a graph is captured, and never failing
        a step."""
        if self.kept or (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()):
            return
        self.kept = True
        data = self.cache.serialize()
        if data is None:
            return
        with contextlib.suppress(
            OSError
        ):  # a folder that cannot be written only costs the next start some seconds
            write(self.file, bytes(data))


class ModuleRunner:
    """A step that torch-tensorrt compiled: engines, and between them what stayed with torch.

    Args:
        module: (x, voice, state) -> (y, next).
    """

    def __init__(self, module: Callable[..., Any]) -> None:
        self.module = module

    def run(self, x: Tensor, voice: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step into fresh tensors."""
        y, after = self.module(x.contiguous(), voice.contiguous(), state.contiguous())
        return y, after

    def launch(self, x: Tensor, voice: Tensor, state: Tensor, y: Tensor, after: Tensor) -> None:
        """One step into given tensors."""
        output, new = self.module(x, voice, state)
        y.copy_(output)
        after.copy_(new)
