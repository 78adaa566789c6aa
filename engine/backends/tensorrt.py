"""TensorRT in both flavours behind one backend: built from the exported step in float32, run on
addresses of torch's tensors."""

import copy
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from rtvc.engine.backends.base import Backend
from rtvc.engine.backends.double_buffer import PingPong, Record, capture
from rtvc.engine.graph.export import Graph, export_step, voice_size
from rtvc.engine.graph.gpu import need_gpu
from rtvc.engine.graph.onnxgraph import to_onnx, without_notes
from rtvc.engine.graph.precision import in_float16, in_float32
from rtvc.engine.graph.target import Target
from rtvc.engine.tensorrt import dynamo, flavours, rtx
from rtvc.engine.tensorrt.running import ModuleRunner, RtxRunner
from rtvc.errors import EngineError
from rtvc.models.streaming.interface import Converter

ENGINE, PROGRAM, NETWORK = "step.engine", "step.ep", "network.json"
"""TensorRT-RTX's engine; torch-tensorrt's program; what the network is made of."""


def graph(converter: Converter, chunk: int, target: Target) -> Graph:
    """The step as either flavour compiles it: in the target's precision, without float64.

    Raises:
        EngineError: when the model cannot be exported.
    """
    from rtvc.layers.dispatch import set_implementation

    module = copy.deepcopy(cast(nn.Module, converter))
    set_implementation(module, "fused" if target.kernels else "reference")
    plain = export_step(cast(Converter, module), chunk)
    program = in_float32(plain.program)
    return Graph(
        in_float16(program) if target.precision == "fp16" else program, plain.inputs, plain.outputs
    )


class TensorrtBackend(Backend):
    """A step that TensorRT compiled. `step` serves pools and sessions; `stream` is quicker where
    one caller owns the rows.

    Args:
        converter: on a CPU, where it still makes the conditions.
        chunk: samples a step.
        directory: where `build` put the engine.
        target: from the engine's manifest.
        device: where tensors lie; tests take the CPU.
        runner: what runs the engine; by default the one of the target's flavour.
        record: makes a step repeatable; tests take direct calls.

    Raises:
        EngineError: without a GPU, or when TensorRT refuses the engine.
        DependencyError: when the flavour is not installed.
    """

    name = "tensorrt"

    def __init__(
        self,
        converter: Converter,
        chunk: int,
        directory: Path,
        target: Target,
        *,
        device: str = "cuda",
        runner: ModuleRunner | RtxRunner | None = None,
        record: Record = capture,
    ) -> None:
        if device != "cpu":
            need_gpu("running a TensorRT engine")
        super().__init__(converter, chunk, device=device)
        self.target, self.record, self.voices = target, record, voice_size(converter)
        self.batches: Sequence[int] = target.rows
        self.runner = self.opened(directory) if runner is None else runner
        self.side = None if device == "cpu" else torch.cuda.Stream()

    @classmethod
    def build(
        cls,
        converter: Converter,
        chunk: int,
        directory: Path,
        source: Path | None = None,
        target: Target | None = None,
        refit: Path | None = None,
    ) -> None:
        """Writes the engine's files. ONNX files of CPU engines hold float64 and are of no use.

        Args:
            converter: the model.
            chunk: samples a step.
            directory: where to.
            source: not used.
            target: resolved.
            refit: an engine directory of the same architecture, whose engine takes the new weights
                (TensorRT only).
        """
        target = flavours.resolve(Target() if target is None else target)
        step = graph(converter, chunk, target)
        if target.flavour == "rtx":
            if refit is not None:
                raise EngineError(
                    "TensorRT-RTX builds in seconds and is not refitted: leave --refit away"
                )
            model = to_onnx(step)
            without_notes(model)
            engine, facts = rtx.build_engine(model.SerializeToString(), target, flavours.rtx())
            (directory / ENGINE).write_bytes(engine)
            (directory / NETWORK).write_text(json.dumps(facts, indent=2) + "\n")
            return
        _, torch_tensorrt = flavours.full()
        program = dynamo.on_gpu(step.program)
        if refit is not None:
            dynamo.refit(refit / PROGRAM, directory / PROGRAM, program, target, torch_tensorrt)
            return
        compiled = dynamo.compile_step(
            program, step.inputs, target, timing_folder(), torch_tensorrt
        )
        dynamo.save(compiled, directory / PROGRAM, program, target, torch_tensorrt)

    def opened(self, directory: Path) -> ModuleRunner | RtxRunner:
        """What runs the engine of a directory."""
        if self.target.flavour == "rtx":
            return RtxRunner(flavours.rtx(), directory / ENGINE)
        _, torch_tensorrt = flavours.full()
        return ModuleRunner(torch_tensorrt.load(str(directory / PROGRAM)).module())

    @contextmanager
    def aside(self) -> Iterator[None]:
        """A stream of its own between what the current one did and will do: TensorRT waits on the
        default stream."""
        if self.side is None:
            yield
            return
        outer = torch.cuda.current_stream()
        self.side.wait_stream(outer)
        with torch.cuda.stream(self.side):
            yield
        outer.wait_stream(self.side)

    def step(self, x: Tensor, voice: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, 1, N), voice (B, V), state (B, S) -> y (B, 1, N), next state (B, S).

        Raises:
            EngineError: for fewer or more rows than the engine was built for.
        """
        self.check(len(x))
        with torch.inference_mode(), self.aside():
            return self.runner.run(x, voice, state)

    def stream(self, rows: int) -> PingPong:
        """A stream of so many rows on state buffers of its own, recorded as CUDA graphs.

        Raises:
            EngineError: for fewer or more rows than the engine was built for.
        """
        self.check(rows)
        return PingPong(
            self.runner.launch,
            self.record,
            rows=rows,
            chunk=self.chunk,
            voice=self.voices,
            start=self._start,
        )

    def check(self, rows: int) -> None:
        """Refuses a batch that the engine was not built for."""
        low, _, most = self.target.batch
        if not low <= rows <= most:
            raise EngineError(
                f"{rows} rows came, this engine takes {low} to {most}: build it with another"
                " --batch MIN:OPT:MAX"
            )


def timing_folder() -> Path:
    """Where torch-tensorrt keeps engines and timings between builds."""
    from rtvc.engine.auto import cache_folder

    return cache_folder() / "tensorrt"


def plan_of(converter: Converter, chunk: int, target: Target) -> Any:
    """The dry run of a build: see `rtvc.engine.tensorrt.plan`."""
    from rtvc.engine.tensorrt.plan import plan

    flavours.no_kernels(target)
    return plan(graph(converter, chunk, target), target)
