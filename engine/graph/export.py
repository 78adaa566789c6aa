"""A converter's step as a functional graph by `torch.export`, where every compiled backend starts:
tensors in, tensors out.

It takes and gives one packed state tensor (`PackedStep`). The batch is dynamic, the chunk is fixed.
Nothing is written in place, so a runtime may run two chunks by feeding the state that came out back
in.
"""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from rtvc.engine.backends.base import Layout, PackedStep
from rtvc.engine.graph.fft import rfft
from rtvc.errors import EngineError
from rtvc.models.streaming.interface import Converter

EXAMPLE = 3
"""Rows of the example batch: not 1, which torch would take for a constant, and unlike the frames of
common chunks."""
MOST_ROWS = 4096
"""Largest batch that an exported graph promises to take."""


@dataclass(frozen=True)
class Graph:
    """An exported program and the names of what goes in and out, in order.

    Attributes:
        program: the program; call `program.module()(*inputs)`.
        inputs: names of the inputs; `state` for the state.
        outputs: names of the outputs; `next` for the next state.
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
    shapes = tuple({0: batch} for _ in example)
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
