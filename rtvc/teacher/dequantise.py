"""The int8 ONNX Kokoro back into float32 tensors under their torch names.

Weights were quantised when the graph was made, activations are quantised on the fly; with weight =
(q - zero point) * scale the torch modules compute what the graph approximates. Weight norm is
folded in the graph, so convolutions have a plain `weight`. Names come from the graph's own: an
initialiser keeps its torch name where the exporter left it, and elsewhere the name of the node that
reads it is the path of its module.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtvc.errors import CheckpointError, needs_extra

Arrays = dict[str, NDArray[Any]]

PREDICTOR_ROOTS = ("F0", "N", "F0_proj", "N_proj", "shared")
"""Modules of the prosody predictor that the graph shows without their parent."""

GATES = (0, 2, 3, 1)
"""Where torch's LSTM gates (input, forget, cell, output) stand in ONNX's order (input, output,
forget, cell)."""


PLAIN = (".bias", ".gamma", ".beta", "LayerNorm.weight", "layer_norm.weight")
"""Endings of the tensors that were never quantised."""


def dequantise(path: Path) -> dict[str, NDArray[np.float32]]:
    """Every weight of the graph, float32, as `COMPONENT.NAME` with the components' names of the
    official checkpoint.

    Raises:
        DependencyError: without the onnx package.
        CheckpointError: if the file is not the ONNX graph of Kokoro.
    """
    with needs_extra("train", "reading the ONNX weights needs the onnx package"):
        import onnx
        from onnx import numpy_helper
    try:
        graph = onnx.load(str(path)).graph
    except Exception as error:  # protobuf raises its own, unrelated classes
        raise CheckpointError(f"{path} is not an ONNX file: {error}") from error
    stored: Arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = _unquantised(stored)
    reader = {name: node for node in graph.node for name in node.input}
    seen: set[str] = (
        set()
    )  # ALBERT runs one layer twelve times: the first node that reads a weight bears its true name
    for node in graph.node:
        inputs = list(node.input)
        if len(inputs) < 2 or not (used := {name for name in inputs[:2] if name in stored} - seen):
            continue
        seen |= used
        match node.op_type:
            case "ConvInteger":
                weights[_module(node.name) + ".weight"] = _dequantised(
                    stored, inputs[1], inputs[3], 0
                )
            case "Conv" | "ConvTranspose" if "/istft/" not in node.name:
                weights[_module(node.name) + ".weight"] = stored[inputs[1]]
            case "MatMulInteger":
                weights[_module(node.name) + ".weight"] = _dequantised(
                    stored, inputs[1], inputs[3], 1
                ).T
            case "MatMul":
                weights[_module(node.name) + ".weight"] = stored[inputs[1]].T
            case "Gather" if inputs[0].endswith("_quantized"):
                weights[_module(node.name) + ".weight"] = _dequantised(
                    stored, inputs[0], reader[node.output[0]].input[2], 0
                )
            case "DynamicQuantizeLSTM":
                weights |= _lstm(stored, inputs, _module(node.name))
    if not weights:
        raise CheckpointError(
            f"{path} is an ONNX file, but not the quantised graph of Kokoro: none of its weights"
            " was found"
        )
    return {name: np.array(value, np.float32, order="C") for name, value in weights.items()}


def _unquantised(stored: Arrays) -> Arrays:
    """The tensors that kept their precision and their names: biases, norms, slopes of the snake
    activation."""
    return {
        _component(name.split(".")): value
        for name, value in stored.items()
        if (
            name.startswith(("encoder.", "decoder."))
            and value.dtype == np.float32
            and name.endswith(PLAIN)
        )
        or ".alpha" in name
    }


def _component(parts: list[str]) -> str:
    """The name in the official checkpoint: "encoder.predictor.F0…" -> "predictor.F0…",
    "decoder.decoder.…" -> "decoder.…"."""
    parts = parts[1:]
    return ".".join(["predictor", *parts] if parts[0] in PREDICTOR_ROOTS else parts)


def _module(node: str) -> str:
    """The module that a node belongs to: "/encoder/text_encoder/cnn.0/cnn.0.0/Conv_quant" ->
    "text_encoder.cnn.0.0"."""
    levels = node.split("/")[1:-1]
    kept = [
        level
        for level, below in zip(levels, [*levels[1:], ""], strict=True)
        if not below.startswith(level + ".")
    ]
    return _component(".".join(kept).split("."))


def _dequantised(stored: Arrays, name: str, zero_point: str, axis: int) -> NDArray[Any]:
    """(q - zero point) * scale; scale and zero point are single numbers, or one for each index of
    `axis`."""
    quantised, scale, zero = (
        stored[n].astype(np.float32)
        for n in (name, name.removesuffix("_quantized") + "_scale", zero_point)
    )
    shape = [1] * quantised.ndim
    shape[axis] = -1
    result: NDArray[Any] = (quantised - zero.reshape(shape)) * scale.reshape(shape)
    return result


def _lstm(stored: Arrays, inputs: list[str], module: str) -> Arrays:
    """A bidirectional LSTM in torch's layout and gate order."""
    wx, wh, bias = (inputs[i] for i in (1, 2, 3))
    tensors: Arrays = {}
    for direction, suffix in enumerate(("", "_reverse")):

        def ordered(matrix: NDArray[Any]) -> NDArray[Any]:
            """(4 H, …) from ONNX's gate order to torch's."""
            gates = matrix.reshape(4, -1, *matrix.shape[1:])
            return gates[list(GATES)].reshape(matrix.shape)

        for torch_name, name, zero_point in (("ih", wx, inputs[9]), ("hh", wh, inputs[11])):
            quantised, zero = (
                stored[name][direction].astype(np.float32),
                stored[zero_point][direction].astype(np.float32),
            )
            scale = stored[name.removesuffix("_quantized") + "_scale"][direction]
            tensors[f"{module}.weight_{torch_name}_l0{suffix}"] = ordered(
                ((quantised - zero) * scale).T
            )
        for torch_name, half in zip(
            ("ih", "hh"), np.split(stored[bias][direction], 2), strict=True
        ):
            tensors[f"{module}.bias_{torch_name}_l0{suffix}"] = ordered(half)
    return tensors
