"""A dry run: which operators of a step TensorRT takes, and which stay with torch and why. Needs no
GPU."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.export import ExportedProgram

from rtvc.engine.graph.export import Graph
from rtvc.engine.graph.onnxgraph import to_onnx
from rtvc.engine.graph.target import Target
from rtvc.engine.tensorrt import flavours
from rtvc.engine.tensorrt.rtx import Log
from rtvc.errors import DependencyError

KERNEL = "one of our own kernels: no converter, so torch runs it between two engines"


@dataclass(frozen=True)
class Plan:
    """What would happen.

    Attributes:
        judge: who said so.
        converts: operators that TensorRT takes, and how many of each.
        falls: operators that it does not, how many, and the reason.
    """

    judge: str
    converts: dict[str, int]
    falls: dict[str, tuple[int, str]] = field(default_factory=dict)

    @property
    def lines(self) -> list[str]:
        """For people to read."""
        all_of_them = sum(self.converts.values()) + sum(count for count, _ in self.falls.values())
        lines = [f"{sum(self.converts.values())} of {all_of_them} operators convert ({self.judge})"]
        lines += [
            f"  {name:32s} {count:5d}  TensorRT" for name, count in sorted(self.converts.items())
        ]
        return lines + [
            f"  {name:32s} {count:5d}  falls back: {reason}"
            for name, (count, reason) in sorted(self.falls.items())
        ]

    @property
    def as_dict(self) -> dict[str, Any]:
        """For machines to read."""
        return {
            "judge": self.judge,
            "converts": self.converts,
            "falls": {
                name: {"count": count, "reason": reason}
                for name, (count, reason) in self.falls.items()
            },
        }


def kernels_of(program: ExportedProgram) -> Counter[str]:
    """Calls of our own operators in a program."""
    targets = [
        node.target
        for node in program.graph.nodes
        if isinstance(node.target, torch._ops.OpOverload)
    ]
    return Counter(str(target) for target in targets if target.namespace == "rtvc")


def plan(graph: Graph, target: Target) -> Plan:
    """What a flavour makes of a graph; the parser of TensorRT-RTX answers for TensorRT where that
    is not installed.

    Raises:
        DependencyError: when nothing is installed that could tell.
    """
    if target.flavour != "rtx":
        try:
            _, torch_tensorrt = flavours.full()
            return by_converters(graph.program, torch_tensorrt)
        except DependencyError:
            if kernels_of(graph.program):
                return Plan(
                    "names alone: torch-tensorrt is not installed", *by_names(graph.program)
                )
    return by_parser(to_onnx(graph), flavours.rtx())


def by_names(program: ExportedProgram) -> tuple[dict[str, int], dict[str, tuple[int, str]]]:
    """Standard operators against our own, for want of a better judge."""
    calls = [
        node.target
        for node in program.graph.nodes
        if isinstance(node.target, torch._ops.OpOverload)
    ]
    own = kernels_of(program)
    return dict(Counter(str(call) for call in calls if str(call) not in own)), {
        name: (count, KERNEL) for name, count in own.items()
    }


def by_converters(program: ExportedProgram, torch_tensorrt: Any) -> Plan:
    """torch-tensorrt's own registry of converters, asked about every node as it will see it."""
    from torch_tensorrt.dynamo import CompilationSettings
    from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_CONVERTERS
    from torch_tensorrt.dynamo.lowering import get_decompositions

    DYNAMO_CONVERTERS.set_compilation_settings(
        CompilationSettings(immutable_weights=False)
    )  # some cannot be refitted
    lowered = program.run_decompositions(get_decompositions())
    converts, falls = Counter[str](), Counter[str]()
    for node in lowered.graph.nodes:
        if node.op == "call_function":
            (converts if node in DYNAMO_CONVERTERS else falls)[str(node.target)] += 1
    own = kernels_of(lowered)
    reasons = {
        name: KERNEL if name in own else "torch-tensorrt has no converter for it" for name in falls
    }
    judge = f"the converters of torch-tensorrt {torch_tensorrt.__version__}"
    return Plan(
        judge, dict(converts), {name: (count, reasons[name]) for name, count in falls.items()}
    )


def by_parser(model: Any, trt: Any) -> Plan:
    """The ONNX parser of TensorRT-RTX, which takes a graph whole or names what it does not take."""
    log = Log(trt)
    network = trt.Builder(log.sink).create_network(
        1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    )
    parser = trt.OnnxParser(network, log.sink)
    parser.supports_model_v2(model.SerializeToString())
    kinds = [node.op_type for node in model.graph.node]
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    taken = {
        node for index in range(parser.num_subgraphs) for node in parser.get_subgraph_nodes(index)
    } - {one.node() for one in errors}
    reasons = {
        one.node_operator(): (
            one.desc()
            if parser.supports_operator(one.node_operator())
            else "TensorRT has no such operator"
        )
        for one in errors
    }
    refused = Counter(kind for index, kind in enumerate(kinds) if index not in taken)
    return Plan(
        f"the ONNX parser of TensorRT-RTX {trt.__version__}",
        dict(Counter(kind for index, kind in enumerate(kinds) if index in taken)),
        {
            kind: (count, reasons.get(kind, "the parser does not take it here"))
            for kind, count in refused.items()
        },
    )
