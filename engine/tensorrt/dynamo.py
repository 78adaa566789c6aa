"""TensorRT through torch-tensorrt's dynamo path: compile, save, load and refit a step. All of it
needs a GPU."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from rtvc.engine.graph.target import Target
from rtvc.errors import EngineError

CACHE_BYTES = 2 << 30


def on_gpu(program: ExportedProgram, device: str = "cuda") -> ExportedProgram:
    """A copy of a program exported on a CPU, with weights, constants and example on the GPU."""
    from torch.export.passes import move_to_device_pass

    moved: ExportedProgram = move_to_device_pass(copy.deepcopy(program), device)
    return moved


def settings(target: Target, cache: Path) -> dict[str, Any]:
    """What torch-tensorrt is told, with names that its versions 2.11 to 2.13 all know.

    Precision is in the graph already. Engines and kernel timings are kept below `cache`, from where
    a rebuild takes them; weights stay replaceable, for `refit` and for the engine cache, which
    refits what it finds.
    """
    return {
        "require_full_compilation": not target.kernels,
        "min_block_size": 5 if target.kernels else 1,
        "disable_tf32": True,
        "use_fp32_acc": target.precision == "fp16",
        "immutable_weights": False,
        "cache_built_engines": True,
        "reuse_cached_engines": True,
        "engine_cache_dir": str(cache / "engines"),
        "engine_cache_size": CACHE_BYTES,
        "timing_cache_path": str(cache / "timing.bin"),
    }


def inputs(
    program: ExportedProgram, names: tuple[str, ...], target: Target, torch_tensorrt: Any
) -> list[Any]:
    """The range of every input: its shape for the fewest, the usual and the most rows."""
    low, usual, most = target.batch
    examples = []
    for name, example in zip(names, program.example_inputs[0], strict=True):
        shape = tuple(example.shape[1:])
        if low == most:
            examples.append(
                torch_tensorrt.Input(shape=(low, *shape), dtype=torch.float32, name=name)
            )
            continue
        ranges = {
            "min_shape": (low, *shape),
            "opt_shape": (usual, *shape),
            "max_shape": (most, *shape),
        }
        examples.append(torch_tensorrt.Input(dtype=torch.float32, name=name, **ranges))
    return examples


def compile_step(
    program: ExportedProgram,
    names: tuple[str, ...],
    target: Target,
    cache: Path,
    torch_tensorrt: Any,
) -> Any:
    """Compiles a program that is on the GPU.

    Raises:
        EngineError: when TensorRT cannot build it.
    """
    cache.mkdir(parents=True, exist_ok=True)
    arguments = inputs(program, names, target, torch_tensorrt)
    try:
        return torch_tensorrt.dynamo.compile(
            program, arg_inputs=arguments, **settings(target, cache)
        )
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise EngineError(
            f"TensorRT cannot build this model ({reason}): see rtvc build --plan, or use --backend"
            " cudagraph"
        ) from error


def rows_of(examples: tuple[Tensor, ...], rows: int) -> tuple[Tensor, ...]:
    """Zeros like the examples, of another batch."""
    return tuple(x.new_zeros(rows, *x.shape[1:]) for x in examples)


def save(
    compiled: Any, path: Path, program: ExportedProgram, target: Target, torch_tensorrt: Any
) -> None:
    """Writes a compiled step as an exported program that holds its engines."""
    low, usual, most = target.batch
    shapes = (
        None
        if low == most
        else tuple({0: Dim("batch", min=low, max=most)} for _ in program.example_inputs[0])
    )
    examples = list(rows_of(program.example_inputs[0], usual))
    torch_tensorrt.save(
        compiled,
        str(path),
        output_format="exported_program",
        arg_inputs=examples,
        dynamic_shapes=shapes,
    )


def refit(
    old: Path, path: Path, program: ExportedProgram, target: Target, torch_tensorrt: Any
) -> None:
    """Writes the engine of `old` with the weights of `program` instead of its own: seconds where
    building takes minutes.

    Raises:
        EngineError: when the two are not of one architecture.
    """
    examples = rows_of(program.example_inputs[0], target.batch[1])
    try:
        compiled = torch_tensorrt.load(str(old))
        fitted = torch_tensorrt.dynamo.refit_module_weights(
            compiled, program, arg_inputs=examples, verify_output=True
        )
    except (RuntimeError, ValueError, AssertionError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise EngineError(
            f"{old} cannot take these weights ({reason}): build the engine anew, without --refit"
        ) from error
    save(fitted, path, program, target, torch_tensorrt)
