"""OpenVINO: the fast extra for Intel and AMD CPUs; bfloat16 arithmetic where the CPU has it, or
int8 weights."""

import logging
import threading
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtvc.engine.backends.base import Backend
from rtvc.engine.backends.onnx import MINIMUM, matrices
from rtvc.engine.graph.onnxgraph import write_onnx
from rtvc.errors import EngineError, needs_extra
from rtvc.models.streaming.interface import Converter

FILE = "step.xml"


def runtime() -> Any:
    """The openvino module.

    Raises:
        DependencyError: when it is not installed.
    """
    with needs_extra("openvino", "the openvino backends need openvino"):
        import openvino
    return openvino


class OpenvinoBackend(Backend):
    """A step in OpenVINO, on one thread, compiled anew for every number of rows that comes.

    Args:
        converter: whose step the file holds; it still makes the conditions.
        chunk: samples a step.
        directory: where `build` put the file.
    """

    name = "openvino"
    precision = "f32"
    batches = (1, 2, 4, 8, 16)

    def __init__(self, converter: Converter, chunk: int, directory: Path) -> None:
        super().__init__(converter, chunk)
        self.core = runtime().Core()
        self.core.set_property({"CACHE_DIR": str(directory / "cache")})
        self.model = self.core.read_model(str(directory / FILE))
        self.requests: dict[int, Any] = {}
        self.alone = threading.Lock()  # a request holds one step: streams of other threads wait
        self.request(1)

    @classmethod
    def build(
        cls, converter: Converter, chunk: int, directory: Path, source: Path | None = None
    ) -> None:
        """Writes the engine's files; `source` is an ONNX file of the same step, if there is one
        already."""
        openvino = runtime()
        plain = directory / "step.onnx"
        write_onnx(converter, chunk, plain, source)
        model = openvino.Core().read_model(str(plain))
        openvino.save_model(
            cls.compress(model, converter), str(directory / FILE), compress_to_fp16=False
        )
        plain.unlink()

    @classmethod
    def compress(cls, model: Any, converter: Converter) -> Any:
        """The model as this backend stores it."""
        return model

    def request(self, rows: int) -> Any:
        """The inference request for a number of rows; the first time, it is compiled."""
        if rows not in self.requests:
            model = self.model.clone()
            state, voice = self.layout.size, model.input("voice").partial_shape[1].get_length()
            model.reshape(
                {"x": [rows, 1, self.chunk], "voice": [rows, voice], "state": [rows, state]}
            )
            self.requests[rows] = self.compiled(model).create_infer_request()
        return self.requests[rows]

    def compiled(self, model: Any) -> Any:
        """The model for this processor, or in plain float32 where this precision cannot be had.

        OpenVINO asks the processor what it can do, and the oneDNN inside asks ONEDNN_MAX_CPU_ISA as
        well: where that allows less (AVX2 on a processor with AVX-512), bfloat16 and quantised
        activations are chosen and then refused.

        Raises:
            EngineError: it does not compile that way either.
        """
        settings = {
            "INFERENCE_PRECISION_HINT": self.precision,
            "INFERENCE_NUM_THREADS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            return self.core.compile_model(model, "CPU", settings)
        except RuntimeError:
            plain = settings | {
                "INFERENCE_PRECISION_HINT": "f32",
                "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
            }
        try:
            return self.core.compile_model(model, "CPU", plain)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise EngineError(
                f"OpenVINO cannot compile the step for this processor ({reason}): use the backend"
                " onnx-int8 or onnx"
            ) from error

    def step(self, x: Tensor, voice: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, 1, N), voice (B, V), state (B, S) -> y (B, 1, N), next state (B, S)."""
        given = {"x": x.numpy(), "voice": voice.numpy(), "state": state.numpy()}
        with self.alone:
            outputs = self.request(len(x)).infer(given, share_inputs=True)
            return torch.from_numpy(outputs["y"].copy()), torch.from_numpy(outputs["next"].copy())


class OpenvinoBf16Backend(OpenvinoBackend):
    """The same with bfloat16 arithmetic, for CPUs with AMX or AVX512-BF16."""

    name = "openvino-bf16"
    precision = "bf16"


class OpenvinoInt8Backend(OpenvinoBackend):
    """The same with weights kept as int8 and float32 arithmetic."""

    name = "openvino-int8"

    @classmethod
    def compress(cls, model: Any, converter: Converter) -> Any:
        """Weights as int8 with a scale and an offset a channel (nncf)."""
        with needs_extra("openvino", "the openvino-int8 backend needs nncf"):
            import nncf
        # Not `nncf.set_log_level`: that also changes the handlers that others have hung there.
        logging.getLogger("nncf").setLevel(logging.ERROR)
        shapes, kept = matrices(converter), []
        for node in model.get_ops():
            if node.get_type_name() == "MatMul":
                shape = (
                    tuple(node.input_value(1).get_shape())
                    if node.input_value(1).partial_shape.is_static
                    else ()
                )
                if prod(shape) < MINIMUM or not ({shape, shape[::-1]} & shapes):
                    kept.append(node.get_friendly_name())
        scope = nncf.IgnoredScope(names=kept)
        return nncf.compress_weights(
            model, mode=nncf.CompressWeightsMode.INT8_ASYM, ignored_scope=scope
        )
