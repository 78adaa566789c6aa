"""Exported graphs in the precisions that TensorRT computes in: float64 becomes float32, large
products may become float16.

What float64 the streaming model holds is for the sake of repeatability, not of hearing: running
means of pitch and energy, F0, and the phase of the harmonic source, which the model keeps modulo
one cycle after every frame. In float32 that phase stays within about a ten-thousandth of a cycle of
the float64 one, and continuous; `docs/gpu.md` has the measurement. Constants are folded in float64
first, so that tables and powers of decays lose nothing but their last bits.
"""

import operator
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import Dim, ExportedProgram

from rtvc.engine.graph.export import MOST_ROWS

LEARNED = 140_000
"""Least number of weights of a product that is computed in float16. Smaller ones gain nothing and
do the delicate work: in the shipped model that is the pitch network, whose least error is heard."""
ASSERTION = torch.ops.aten._assert_tensor_metadata.default
COPY = torch.ops.aten._to_copy.default
PRODUCTS = (
    torch.ops.aten.linear.default,
    torch.ops.aten.matmul.default,
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
)
CREATORS = (
    torch.ops.aten.arange.default,
    torch.ops.aten.full.default,
    torch.ops.aten.zeros.default,
    torch.ops.aten.ones.default,
)
LARGEST_CONSTANT = 1 << 22


def again(program: ExportedProgram, graph: fx.GraphModule) -> ExportedProgram:
    """The edited graph of a program, exported with the same example and a free batch."""
    graph.graph.eliminate_dead_code()
    used = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    for name in [
        name for name, _ in (*graph.named_parameters(), *graph.named_buffers()) if name not in used
    ]:
        owner, _, leaf = name.rpartition(".")
        delattr(
            graph.get_submodule(owner), leaf
        )  # what only the voice's condition needs, and what was folded
    graph.graph.lint()
    graph.recompile()
    example = program.example_inputs[0]
    batch = Dim("batch", min=1, max=MOST_ROWS)
    return torch.export.export(graph, example, dynamic_shapes=tuple({0: batch} for _ in example))


def attribute(graph: fx.GraphModule, target: str) -> Any:
    """What a `get_attr` node names."""
    return operator.attrgetter(target)(graph)


def fold_constants(graph: fx.GraphModule) -> int:
    """Computes once what depends on nothing but numbers and buffers, in its own precision; returns
    how many nodes went.

    Parameters stay as they are, so that a runtime may find them by name and replace them.
    """
    # Forwards through the graph: a node is known when all that it takes is known.
    known: dict[fx.Node, Tensor] = {}
    folded = 0
    for node in list(graph.graph.nodes):
        if node.op == "get_attr":
            value = attribute(graph, str(node.target))
            if isinstance(value, Tensor) and not isinstance(value, torch.nn.Parameter):
                known[node] = value
        elif (
            node.op == "call_function"
            and isinstance(node.target, torch._ops.OpOverload)
            and node.target is not ASSERTION
        ):
            inputs = node.all_input_nodes
            if (not inputs and node.target in CREATORS) or (
                inputs and all(x in known for x in inputs)
            ):
                value = node.target(
                    *fx.map_arg(node.args, known.__getitem__),
                    **fx.map_arg(node.kwargs, known.__getitem__),
                )
                if isinstance(value, Tensor) and value.numel() <= LARGEST_CONSTANT:
                    known[node] = value
    # Only the last known nodes become constants: those between have no other reader, and go.
    for node, value in known.items():
        if node.op == "get_attr" or all(user in known for user in node.users):
            continue
        name = f"constant_{folded}"
        graph.register_buffer(name, value.detach().clone().contiguous())
        with graph.graph.inserting_before(node):
            node.replace_all_uses_with(graph.graph.get_attr(name))
        folded += 1
    graph.graph.eliminate_dead_code()
    return folded


def without_complex(graph: fx.GraphModule) -> None:
    """Real and imaginary parts that are joined only to be taken apart again stay apart: TensorRT
    knows no complex numbers."""
    for node in list(graph.graph.nodes):
        if (
            node.target is torch.ops.aten.view_as_real.default
            and node.args[0].target is torch.ops.aten.complex.default
        ):
            with graph.graph.inserting_before(node):
                pair = graph.graph.call_function(
                    torch.ops.aten.stack.default, (list(node.args[0].args), -1)
                )
            pair.meta = dict(node.meta)
            node.replace_all_uses_with(pair)
    graph.graph.eliminate_dead_code()


def without_running_sums(graph: fx.GraphModule) -> None:
    """Running sums over the last dimension become products with a triangle of ones: TensorRT's loop
    for them cannot be refitted."""
    for node in list(graph.graph.nodes):
        value = node.meta.get("val")
        if (
            node.target is not torch.ops.aten.cumsum.default
            or node.args[1] not in (-1, value.ndim - 1)
            or not isinstance(value.shape[-1], int)
        ):
            continue
        name = f"triangle_{node.name}"
        graph.register_buffer(
            name, torch.ones(value.shape[-1], value.shape[-1], dtype=value.dtype).triu()
        )
        with graph.graph.inserting_before(node):
            product = graph.graph.call_function(
                torch.ops.aten.matmul.default, (node.args[0], graph.graph.get_attr(name))
            )
        product.meta = dict(node.meta)
        node.replace_all_uses_with(product)
    graph.graph.eliminate_dead_code()


def in_float32(program: ExportedProgram) -> ExportedProgram:
    """The program with everything that it computes in float64 computed in float32, constants
    folded, no complex numbers and no loops.

    Inputs and outputs keep their types: steps take and give float32 already. Our own operators,
    which insist on float64 phases, are given them by casts around the call.
    """
    graph = program.module(check_guards=False)
    assert isinstance(graph, fx.GraphModule)
    for node in list(graph.graph.nodes):
        if node.target is ASSERTION:
            graph.graph.erase_node(node)
    without_complex(graph)
    without_running_sums(graph)
    fold_constants(graph)

    def narrow(value: Any) -> Any:
        return torch.float32 if value == torch.float64 else value

    for node in list(graph.graph.nodes):
        if own(node):
            widen(graph, node)
        elif node.op == "call_function":
            node.args = tuple(narrow(value) for value in node.args)
            node.kwargs = {name: narrow(value) for name, value in node.kwargs.items()}
        elif node.op == "get_attr":
            value = attribute(graph, str(node.target))
            if isinstance(value, Tensor) and value.dtype == torch.float64:
                owner, _, name = str(node.target).rpartition(".")
                setattr(graph.get_submodule(owner), name, value.float())
    return again(program, graph)


def own(node: fx.Node) -> bool:
    """Whether a node calls one of our kernels."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target.namespace == "rtvc"


def is_float64(node: fx.Node) -> bool:
    """Whether a node was traced as a float64 tensor."""
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.dtype == torch.float64


def cast_before(graph: fx.GraphModule, node: fx.Node, x: fx.Node, dtype: torch.dtype) -> fx.Node:
    """An input of a node, cast for it."""
    with graph.graph.inserting_before(node):
        return graph.graph.call_function(COPY, (x,), {"dtype": dtype})


def cast_after(graph: fx.GraphModule, node: fx.Node, dtype: torch.dtype) -> None:
    """Casts what a node gives for all who use it."""
    with graph.graph.inserting_after(node):
        cast = graph.graph.call_function(COPY, (node,), {"dtype": dtype})
    node.replace_all_uses_with(cast, delete_user_cb=lambda user: user is not cast)


def widen(graph: fx.GraphModule, node: fx.Node) -> None:
    """Casts the float64 inputs of an operator from float32, and its float64 outputs back."""

    def wide(x: fx.Node) -> fx.Node:
        return cast_before(graph, node, x, torch.float64) if is_float64(x) else x

    node.args, node.kwargs = fx.map_arg(node.args, wide), fx.map_arg(node.kwargs, wide)
    for result in [node, *node.users]:
        if (result is node or result.target is operator.getitem) and is_float64(result):
            cast_after(graph, result, torch.float32)


def in_float16(program: ExportedProgram, least: int = LEARNED) -> ExportedProgram:
    """The program with its large learned products in float16 and all else as it was: norms,
    statistics, source, spectra, states.

    Args:
        program: of float32.
        least: weights that a product must have to be converted.
    """
    graph = program.module(check_guards=False)
    assert isinstance(graph, fx.GraphModule)
    for node in list(graph.graph.nodes):
        if node.target not in PRODUCTS or not any(
            learned(graph, x, least) for x in node.all_input_nodes
        ):
            continue

        def halved(x: fx.Node, node: fx.Node = node) -> fx.Node:
            return cast_before(graph, node, x, torch.float16)

        node.args = fx.map_arg(node.args, halved)
        cast_after(graph, node, torch.float32)
    return again(program, graph)


def learned(graph: fx.GraphModule, node: fx.Node, least: int) -> bool:
    """Whether a node is a parameter of at least so many values, possibly reshaped."""
    while node.op == "call_function" and len(node.all_input_nodes) == 1:
        node = node.all_input_nodes[0]
    if node.op != "get_attr":
        return False
    value = attribute(graph, str(node.target))
    return isinstance(value, torch.nn.Parameter) and value.numel() >= least
