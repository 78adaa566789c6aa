"""What an ONNX graph must lose before TensorRT takes it: float64, and the notes that torch leaves in it."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx


def without_notes(model: "onnx.ModelProto") -> None:
    """Removes what torch writes about its sources, paths of the exporting machine among it."""
    for thing in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info):
        del thing.metadata_props[:]


def without_float64(model: "onnx.ModelProto") -> int:
    """Computes in float32 what the graph would compute in float64; returns how many places changed.

    The only float64 of the streaming model is the phase of its harmonic source, kept modulo one cycle: in float32 it is
    off by less than 1e-6 of a cycle a step and stays continuous. Graph inputs and outputs are float32 already.
    """
    from onnx import TensorProto, numpy_helper

    count = 0
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.DOUBLE:
                attribute.i = TensorProto.FLOAT
                count += 1
            if attribute.HasField("t") and attribute.t.data_type == TensorProto.DOUBLE:
                attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float32), attribute.t.name))
                count += 1
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.DOUBLE:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
            count += 1
    del model.graph.value_info[:]
    return count
