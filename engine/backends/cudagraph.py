"""CUDA graphs: the whole step recorded once a number of rows and replayed by one call, without
Python or launches between kernels."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from rtvc.engine.backends.base import Backend, PackedStep
from rtvc.engine.backends.double_buffer import Lanes, PingPong, Record, capture
from rtvc.engine.graph.export import voice_size
from rtvc.engine.graph.gpu import need_gpu, placed
from rtvc.engine.graph.target import Target
from rtvc.models.streaming.interface import Converter


class CudaGraphBackend(Backend):
    """The converter on a GPU, captured. `step` serves pools and sessions; `stream` is quicker where
    one caller owns the rows.

    Args:
        converter: on a CPU, where it still makes the conditions; a copy of it steps.
        chunk: samples a step.
        directory: of the engine, whose manifest is all that it holds.
        target: which batches to pad to, and whether to run our own kernels.
        device: where steps run; tests take the CPU.
        record: makes a step repeatable; tests take direct calls.

    Raises:
        EngineError: without a GPU.
    """

    name = "cudagraph"

    def __init__(
        self,
        converter: Converter,
        chunk: int,
        directory: Path | None = None,
        target: Target | None = None,
        *,
        device: str = "cuda",
        record: Record = capture,
    ) -> None:
        if device != "cpu":
            need_gpu("the cudagraph backend")
        target = Target(flavour="cuda", kernels=True) if target is None else target
        super().__init__(converter, chunk, device=device)
        self.batches: Sequence[int] = target.rows
        self.voices, self.record = voice_size(converter), record
        module = placed(cast(nn.Module, converter), self.device, target.kernels)
        self.module = PackedStep(cast(Converter, module), self.layout).eval()
        self.lanes = Lanes(self.stream)

    @classmethod
    def build(
        cls,
        converter: Converter,
        chunk: int,
        directory: Path,
        source: Path | None = None,
        target: Target | None = None,
    ) -> None:
        """Steps once, so that an engine that cannot be captured is never written; graphs themselves
        live in memory only."""
        backend = cls(converter, chunk, directory, target)
        backend.stream(1)

    def launch(self, x: Tensor, voice: Tensor, state: Tensor, y: Tensor, after: Tensor) -> None:
        """One step of the model into given memory."""
        output, new = self.module(x, voice, state)
        y.copy_(output)
        after.copy_(new)

    def stream(self, rows: int) -> PingPong:
        """A stream of so many rows on state buffers of its own, which no step copies."""
        return PingPong(
            self.launch,
            self.record,
            rows=rows,
            chunk=self.chunk,
            voice=self.voices,
            start=self._start,
        )

    def step(self, x: Tensor, voice: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, 1, N), voice (B, V), state (B, S) -> y (B, 1, N), next state (B, S); the first step
        of so many rows records."""
        return self.lanes.step(x, voice, state)
