"""What a model costs, measured from its real modules: parameters, mult-adds, memory and time."""

import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

BYTES = 4
"""Of one number: everything runs in float32."""


def call(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
    """The usual way to run a component."""
    return module(*inputs)


@dataclass(frozen=True)
class Published:
    """A figure from print.

    Attributes:
        mult_adds: as printed.
        why: why a count of the operations gives another number.
    """

    mult_adds: float
    why: str


@dataclass(frozen=True)
class Part:
    """One component of a model, and how to run it for measuring.

    Attributes:
        name: in the table.
        build: makes the module.
        inputs: makes example inputs for a number of mel frames.
        training: whether training uses it.
        inference: whether inference uses it.
        published: what was printed of it.
        run: calls the module on its inputs.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[Any, ...]]
    training: bool = True
    inference: bool = True
    published: Published | None = None
    run: Callable[[nn.Module, tuple[Any, ...]], Any] = call


@dataclass(frozen=True)
class Cost:
    """What one component costs; sizes in bytes, time in seconds.

    Attributes:
        parameters: all of them.
        training: of those, in training (all or none).
        inference: of those, in inference (all or none).
        idle: of those, which this forward does not reach.
        mult_adds: multiplications with an addition in convolutions, linear layers, attention and
            LSTMs.
        mult_adds_published: as printed, None where nothing is.
        mult_adds_by_layer_outputs: what the tool behind the printed figures gives
            (`count_by_layer_outputs`).
        forward_backward_size: outputs of all innermost layers, and their gradients.
        running_time: median of the timed forwards, no gradients.
        why: why the printed figure differs.
    """

    name: str
    parameters: int
    training: int
    inference: int
    idle: int
    mult_adds: int
    mult_adds_published: float | None
    mult_adds_by_layer_outputs: int
    input_size: int
    forward_backward_size: int
    params_size: int
    total_size: int
    running_time: float
    why: str | None


@contextmanager
def leaf_outputs(module: nn.Module) -> Iterator[list[tuple[nn.Module, Any]]]:
    """Every innermost layer that runs, with what it returned."""
    seen: list[tuple[nn.Module, Any]] = []

    def note(layer: nn.Module, _: object, output: object) -> None:
        seen.append((layer, output))

    handles = [
        layer.register_forward_hook(note) for layer in module.modules() if not any(layer.children())
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def tensors(value: Any) -> list[Tensor]:
    """Every tensor within a nest of containers, packed sequences included."""
    collected = []
    for leaf in tree_leaves(value):
        if isinstance(leaf, PackedSequence):
            collected.append(leaf.data)
        elif isinstance(leaf, Tensor):
            collected.append(leaf)
    return collected


def count_by_layer_outputs(layers: Sequence[tuple[nn.Module, Any]]) -> int:
    """Mult-adds as torchinfo 1.x counts them: parameters times the size of each layer's output.

    A parameter called `weight` or `bias` counts once for each row, in convolutions once for each
    output frame; any other name with `weight` or `bias` in it, as those of LSTMs, once for each
    entry of the first two axes of the output. That is right for an LSTM over (B, T, C). For
    `weight_v` and `weight_orig` of normed convolutions, whose output is (B, C, T), it counts
    channels in place of frames, and for a packed LSTM output, (frames, C), frames times channels.
    """
    total = 0
    for layer, output in layers:
        size = tensors(output)[0].shape
        frames = math.prod(size[2:]) if isinstance(layer, nn.modules.conv._ConvNd) else 1
        for name, parameter in layer.named_parameters(recurse=False):
            if name in ("weight", "bias"):
                total += parameter.numel() * size[0] * frames
            elif "weight" in name or "bias" in name:
                total += parameter.numel() * math.prod(size[:2])
    return total


def reached(outputs: Sequence[Tensor]) -> set[int]:
    """Ids of the parameters that these outputs depend on, found by walking back through the
    graph."""
    pending = [output.grad_fn for output in outputs if output.grad_fn is not None]
    seen, nodes = set(pending), set()
    while pending:
        node = pending.pop()
        if node is None:
            continue
        if (variable := getattr(node, "variable", None)) is not None:
            nodes.add(id(variable))
        fresh = {following for following, _ in node.next_functions if following is not None} - seen
        seen |= fresh
        pending.extend(fresh)
    return nodes


def measure(part: Part, frames: int = 192, repeats: int = 3) -> Cost:
    """Builds a component with random weights and runs it.

    Args:
        part: the component.
        frames: of mel at 80 Hz.
        repeats: timed forwards.
    """
    torch.manual_seed(0)
    module, inputs = part.build().eval(), part.inputs(frames)
    parameters = {id(p): p.numel() for p in module.parameters()}
    with warnings.catch_warnings(), leaf_outputs(module) as layers:
        warnings.simplefilter("ignore")  # the switch below warns of GPUs that are not there
        # oneDNN hides the products inside an LSTM from the counter.
        with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
            used = reached(tensors(part.run(module, inputs)))
    times = []
    with torch.no_grad():
        for _ in range(repeats):
            start = time.perf_counter()
            part.run(module, inputs)
            times.append(time.perf_counter() - start)
    total = sum(parameters.values())
    input_size = BYTES * sum(x.numel() for x in tensors(inputs))
    activations = 2 * BYTES * sum(x.numel() for _, output in layers for x in tensors(output)[:1])
    return Cost(
        name=part.name,
        parameters=total,
        training=total if part.training else 0,
        inference=total if part.inference else 0,
        idle=sum(size for key, size in parameters.items() if key not in used),
        mult_adds=counter.get_total_flops() // 2,
        mult_adds_published=part.published.mult_adds if part.published else None,
        mult_adds_by_layer_outputs=count_by_layer_outputs(layers),
        input_size=input_size,
        forward_backward_size=activations,
        params_size=BYTES * total,
        total_size=input_size + activations + BYTES * total,
        running_time=statistics.median(times),
        why=part.published.why if part.published else None,
    )


def summarise(parts: Sequence[Part], frames: int = 192, repeats: int = 3) -> dict[str, Any]:
    """Costs of all components and their sums, ready for JSON: {"frames", "components": […],
    "total": {…}}."""
    costs = [asdict(measure(part, frames, repeats)) for part in parts]
    summed = (
        [key for key, value in costs[0].items() if isinstance(value, int | float)] if costs else []
    )
    total = {key: sum(cost[key] or 0 for cost in costs) for key in summed}
    return {"frames": frames, "components": costs, "total": total}
