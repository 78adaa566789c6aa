"""`torch.compile`, ahead of time: AOTInductor writes one package of machine code that loads without
compiling again."""

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtvc.engine.backends.base import Backend
from rtvc.engine.graph.export import export_step
from rtvc.errors import DependencyError
from rtvc.models.streaming.interface import Converter

FILE = "step.pt2"


class CompiledBackend(Backend):
    """A step as compiled by torch's own compiler; building it needs a C++ compiler, running it does
    not.

    Args:
        converter: whose step the file holds; it still makes the conditions.
        chunk: samples a step.
        directory: where `build` put the file.
    """

    name = "torch-compile"

    def __init__(self, converter: Converter, chunk: int, directory: Path) -> None:
        super().__init__(converter, chunk)
        self.package: Any = torch._inductor.aoti_load_package(str(directory / FILE))

    @classmethod
    def build(
        cls, converter: Converter, chunk: int, directory: Path, source: Path | None = None
    ) -> None:
        """Writes the engine's file; ONNX is of no use to it.

        Raises:
            DependencyError: without a C++ compiler.
        """
        if shutil.which("g++") is None and shutil.which("clang++") is None:
            raise DependencyError(
                "the torch-compile backend is built by a C++ compiler: install g++ (Debian: apt-get"
                " install g++)"
            )
        with torch._inductor.config.patch({"freezing": True, "cpp.threads": 1}):
            torch._inductor.aoti_compile_and_package(
                export_step(converter, chunk).program, package_path=str(directory / FILE)
            )

    def step(self, x: Tensor, voice: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, 1, N), voice (B, V), state (B, S) -> y (B, 1, N), next state (B, S)."""
        with torch.inference_mode():
            y, new = self.package(x.contiguous(), voice.contiguous(), state.contiguous())
        return y, new
