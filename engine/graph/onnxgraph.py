"""ONNX files of exported graphs."""

import logging
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rtvc.engine.graph.export import Graph, export_step
from rtvc.errors import DependencyError, EngineError
from rtvc.models.streaming.interface import Converter

if TYPE_CHECKING:
    import onnx

OPSET = 20


def packages(*names: str) -> None:
    """Imports what writing ONNX needs.

    Raises:
        DependencyError: naming what is missing.
    """
    try:
        for name in names:
            __import__(name)
    except ImportError as error:
        raise DependencyError(
            f"building an ONNX engine needs {error.name}: pip install 'rtvc-engine[onnx]'"
        ) from error


def to_onnx(graph: Graph) -> Any:
    """The ONNX model of an exported graph (onnx.ModelProto), inputs and outputs by the graph's
    names.

    Raises:
        DependencyError: without onnx or onnxscript.
        EngineError: when torch cannot translate the graph.
    """
    packages("onnx", "onnxscript")
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.onnx.export(
                graph.program,
                dynamo=True,
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                opset_version=OPSET,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise EngineError(
            f"torch cannot write this model as ONNX ({str(error).splitlines()[0]}): use the"
            " torch-eager backend"
        ) from error
    finally:
        logger.setLevel(level)
    if exported is None:
        raise EngineError(
            "torch.onnx gave no program for the model's step: use the torch-eager backend"
        )
    return exported.model_proto


def without_notes(model: "onnx.ModelProto") -> None:
    """Removes what torch writes about its sources, paths of the exporting machine among it."""
    for thing in (
        model,
        model.graph,
        *model.graph.node,
        *model.graph.input,
        *model.graph.output,
        *model.graph.value_info,
    ):
        del thing.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""


def write_onnx(converter: Converter, chunk: int, path: Path, source: Path | None = None) -> None:
    """Writes the step as one ONNX file, constants folded by ONNX Runtime so that every weight is a
    plain matrix.

    `source` is such a file from before: it is copied, which saves a minute.

    Raises:
        DependencyError: without onnx, onnxscript or onnxruntime.
        EngineError: when the model holds something that cannot be exported.
    """
    if source is not None:
        shutil.copyfile(source, path)
        return
    packages("onnx", "onnxruntime", "onnxscript")
    import onnx
    import onnxruntime

    raw = path.with_suffix(".raw.onnx")
    onnx.save(to_onnx(export_step(converter, chunk)), str(raw))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(raw), options, providers=["CPUExecutionProvider"])
    raw.unlink()
    model = onnx.load(str(path))
    del model.graph.value_info[
        :
    ]  # shapes inferred before folding disagree with what quantisers infer again
    without_notes(model)
    onnx.save(model, str(path))
