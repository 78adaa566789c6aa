"""ONNX Runtime: small to install, quick to load, and with int8 weights the fastest on most CPUs."""

import logging
import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtvc.engine.backends.base import Backend
from rtvc.engine.graph.export import weights
from rtvc.engine.graph.onnxgraph import write_onnx
from rtvc.errors import needs_extra
from rtvc.models.streaming.interface import Converter

FILE = "step.onnx"
MINIMUM = 140_000
"""Matrices with fewer values stay in float: little is gained, and the small ones do the delicate
work. In the shipped model that is the pitch network, whose least error is heard."""


def runtime() -> Any:
    """The onnxruntime module.

    Raises:
        DependencyError: when it is not installed.
    """
    with needs_extra("onnx", "the onnx backends need onnxruntime"):
        import onnxruntime
    return onnxruntime


def learned(model: Any, parameters: set[tuple[int, ...]]) -> list[str]:
    """The matrix products whose constant is a learned weight: those of transforms and filter banks
    must not be rounded to int8."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    values = []
    for node in model.graph.node:
        shape = shapes.get(node.input[1], ()) if node.op_type in ("MatMul", "Gemm") else ()
        if (
            len(shape) == 2
            and shape[0] * shape[1] >= MINIMUM
            and (shape in parameters or shape[::-1] in parameters)
        ):
            values.append(node.name)
    return values


def matrices(converter: Converter) -> set[tuple[int, ...]]:
    """Shapes (rows, columns) of the converter's weight matrices, convolutions flattened as their
    product uses them."""
    return {
        (tensor.shape[0], tensor[0].numel())
        for tensor in weights(converter).values()
        if tensor.ndim > 1
    }


def quantise(source: Path, target: Path, converter: Converter) -> None:
    """int8 weights a channel, activations quantised as they come; transforms and small matrices
    stay in float32.

    Weights take seven bits, -64..63. Processors without VNNI add two products of a byte of
    activation (0..255) and a weight in 16 bits, which saturate: eight bits lose 28 dB of fidelity
    there, seven never reach the end (2 * 255 * 64 = 32,640 of 32,767). They cost 2 dB elsewhere and
    no time, and an engine may be built on one machine for another.
    Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "When to
    use reduce-range".
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(str(source))
    here = threading.get_ident()

    def others(record: logging.LogRecord) -> bool:
        """Whether a line is another thread's: this one is advised a pre-processing that
        `write_onnx` has done. A level for all would outlast two threads that build at once."""
        return record.thread != here

    logging.root.addFilter(others)
    try:
        quantize_dynamic(
            str(source),
            str(target),
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            nodes_to_quantize=learned(model, matrices(converter)),
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
    finally:
        logging.root.removeFilter(others)


class OnnxBackend(Backend):
    """A step in ONNX Runtime, on one thread.

    Args:
        converter: whose step the file holds; it still makes the conditions.
        chunk: samples a step.
        directory: where `build` put the file.
    """

    name = "onnx"

    def __init__(self, converter: Converter, chunk: int, directory: Path) -> None:
        super().__init__(converter, chunk)
        module = runtime()
        options = module.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = module.InferenceSession(
            str(directory / FILE), options, providers=["CPUExecutionProvider"]
        )

    @classmethod
    def build(
        cls, converter: Converter, chunk: int, directory: Path, source: Path | None = None
    ) -> None:
        """Writes the engine's file; `source` is an ONNX file of the same step, if there is one
        already."""
        write_onnx(converter, chunk, directory / FILE, source)

    def step(self, x: Tensor, voice: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, 1, N), voice (B, V), state (B, S) -> y (B, 1, N), next state (B, S)."""
        y, new = self.session.run(
            None, {"x": x.numpy(), "voice": voice.numpy(), "state": state.numpy()}
        )
        return torch.from_numpy(y), torch.from_numpy(new)


class OnnxInt8Backend(OnnxBackend):
    """The same with int8 weights and dynamically quantised activations."""

    name = "onnx-int8"

    @classmethod
    def build(
        cls, converter: Converter, chunk: int, directory: Path, source: Path | None = None
    ) -> None:
        """Writes the engine's file; `source` is an ONNX file of the same step, if there is one
        already."""
        plain = directory / "float.onnx"
        write_onnx(converter, chunk, plain, source)
        quantise(plain, directory / FILE, converter)
        plain.unlink()
