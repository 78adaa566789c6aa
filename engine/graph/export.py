"""Functional graphs of a converter and its parts by `torch.export`, where every compiled backend
starts: tensors in, tensors out.

The whole step takes and gives one packed state tensor (`PackedStep`); a part takes and gives its
state leaf by leaf, each binding named by its path in the pytree. The batch is dynamic, the chunk is
fixed. Nothing is written in place, so a runtime may run two chunks by feeding the state that came
out back in.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from rtvc.engine.backends.base import Layout, PackedStep
from rtvc.engine.graph.fft import rfft
from rtvc.errors import EngineError
from rtvc.layers.contract import State, leaf_names
from rtvc.models.streaming.interface import Converter

EXAMPLE = 3
"""Rows of the example batch: not 1, which torch would take for a constant, and unlike the frames of
common chunks."""
MOST_ROWS = 4096
"""Largest batch that an exported graph promises to take."""


@dataclass(frozen=True)
class Part:
    """A piece of a converter that is exported by itself: `y, state = call(*inputs, state)`.

    Attributes:
        module: owns the parameters.
        inputs: example tensors of `EXAMPLE` rows by name, the chunk's length in their last
            dimension.
        state: the state of `EXAMPLE` rows.
    """

    module: nn.Module
    inputs: Mapping[str, Tensor]
    state: State


class Flat(nn.Module):
    """A part with its pytrees flattened: (*inputs, *state leaves) -> (*outputs, *state leaves)."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.module, self.count = part.module, len(part.inputs)
        self.spec = pytree.tree_structure(part.state)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The module's outputs, then the leaves of its next state."""
        y, state = self.module(
            *tensors[: self.count], pytree.tree_unflatten(list(tensors[self.count :]), self.spec)
        )
        return (*pytree.tree_leaves(y), *pytree.tree_leaves(state))


@dataclass(frozen=True)
class Graph:
    """An exported program and the names of what goes in and out, in order.

    Attributes:
        program: the program; call `program.module()(*inputs)`.
        inputs: names of the inputs; `state` or `state.PATH` for the state.
        outputs: names of the outputs; `next` or `next.PATH` for the next state.
    """

    program: ExportedProgram
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Runs the program."""
        outputs: tuple[Tensor, ...] = self.program.module()(*tensors)
        return outputs


def voice_size(converter: Converter) -> int:
    """V, the numbers that condition a step."""
    with torch.inference_mode():
        return int(converter.condition(torch.zeros(1, 128), torch.zeros(1, 128)).shape[1])


def weights(converter: Converter) -> dict[str, Tensor]:
    """The converter's parameters and saved buffers, by name.

    Raises:
        EngineError: when the converter is no torch module.
    """
    if not isinstance(converter, nn.Module):
        raise EngineError(
            f"expected a torch module, got {type(converter).__name__}: engines are built from its"
            " weights"
        )
    return dict(converter.state_dict())


def program_of(module: nn.Module, example: tuple[Tensor, ...], name: str) -> ExportedProgram:
    """Any module of tensors in and tensors out as a program whose batch is free and whose FFTs are
    matrix products.

    Raises:
        EngineError: when it holds something that torch cannot export.
    """
    batch = Dim("batch", min=1, max=MOST_ROWS)
    shapes: Any = tuple({0: batch} for _ in example)
    if isinstance(module, Flat):
        shapes = (shapes,)  # its forward takes them as one *tensors
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program: ExportedProgram = torch.export.export(
                module.eval(), example, dynamic_shapes=shapes
            )
            program = program.run_decompositions({torch.ops.aten.fft_rfft.default: rfft})
    except (RuntimeError, torch._dynamo.exc.UserError) as error:
        reason = str(error).splitlines()[0]
        raise EngineError(
            f"torch {torch.__version__} cannot export {name} for any batch ({reason}): use"
            " torch-eager"
        ) from error
    return program


def export_step(converter: Converter, chunk: int) -> Graph:
    """The whole step of `chunk` samples: (x (B, 1, N), voice (B, V), state (B, S)) -> (y (B, 1, N),
    next (B, S)).

    Raises:
        EngineError: for a chunk that the model cannot take, or a model that torch cannot export.
    """
    if chunk <= 0 or chunk % converter.hop:
        raise EngineError(
            f"expected a chunk of a multiple of the model's hop of {converter.hop} samples, got"
            f" {chunk}"
        )
    layout = Layout.of(converter.initial(1))
    example = (
        torch.zeros(EXAMPLE, 1, chunk),
        torch.zeros(EXAMPLE, voice_size(converter)),
        layout.pack(converter.initial(EXAMPLE)),
    )
    return Graph(
        program_of(PackedStep(converter, layout), example, "the model's step"),
        ("x", "voice", "state"),
        ("y", "next"),
    )


def export_part(name: str, part: Part) -> Graph:
    """One part, its state flattened into one binding a leaf.

    Raises:
        EngineError: for a part that torch cannot export.
    """
    program = program_of(Flat(part), (*part.inputs.values(), *pytree.tree_leaves(part.state)), name)
    with torch.no_grad():
        y, _ = part.module(*part.inputs.values(), part.state)
    leaves = leaf_names(part.state)
    outputs = ["y"] if isinstance(y, Tensor) else [f"y.{leaf}" for leaf in leaf_names(y)]
    inputs = (*part.inputs, *(f"state.{leaf}".rstrip(".") for leaf in leaves))
    return Graph(program, inputs, (*outputs, *(f"next.{leaf}".rstrip(".") for leaf in leaves)))


def mutations(graph: Graph) -> dict[str, str]:
    """Buffers and inputs that the program writes to; empty for a functional graph."""
    signature = graph.program.graph_signature
    return {**signature.buffers_to_mutate, **getattr(signature, "user_inputs_to_mutate", {})}


def parts(converter: Converter, chunk: int) -> dict[str, Part]:
    """The parts of the shipped streaming model that are worth exporting alone: encoder, pitch and
    decoder.

    Raises:
        EngineError: for a converter whose parts are not known.
    """
    from rtvc.models.streaming import StreamingConverter
    from rtvc.models.streaming.analysis import PITCH_BINS

    if not isinstance(converter, StreamingConverter):
        raise EngineError(
            f"{type(converter).__name__} came, parts are known of StreamingConverter only: export"
            " the whole step"
        )
    frames, rows = chunk // converter.hop, EXAMPLE
    decoder = converter.decoder
    return {
        "encoder": Part(
            converter.encoder,
            {"mel": torch.zeros(rows, converter.encoder.bands, frames)},
            converter.encoder.initial(rows),
        ),
        "pitch": Part(
            converter.pitch,
            {"low": torch.zeros(rows, PITCH_BINS, frames)},
            converter.pitch.initial(rows),
        ),
        "decoder": Part(
            decoder,
            {
                "content": torch.zeros(rows, decoder.inputs.inputs - 4, frames),
                "log_f0": torch.full((rows, frames), 5.0),
                "voicing": torch.ones(rows, frames),
                "energy": torch.zeros(rows, 2, frames),
                "style": torch.zeros(rows, decoder.style_size),
            },
            decoder.initial(rows),
        ),
    }
