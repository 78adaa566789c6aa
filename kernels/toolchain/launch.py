"""The one place that starts a Triton kernel, so that a launch can be recorded instead of run.

Launchers take a `Launch`; by default it is `launch`. `Recorder` collects what would have run:
ahead-of-time compilation builds exactly the variants that the launchers use, from meta tensors,
without a GPU.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

Grid: TypeAlias = tuple[int, ...]
STAGES = 2
"""Of the software pipeline of every kernel."""


class Launch(Protocol):
    """Starts `kernel` over `grid` with named arguments."""

    def __call__(
        self, kernel: Any, grid: Grid, arguments: Mapping[str, Any], *, num_warps: int
    ) -> None:
        """Arguments named in capitals are compile-time constants."""
        ...


def launch(kernel: Any, grid: Grid, arguments: Mapping[str, Any], *, num_warps: int) -> None:
    """Runs the kernel on the device and the current stream of its first tensor."""
    device = next(x for x in arguments.values() if isinstance(x, Tensor)).device
    if device.type == "cuda" and device.index != torch.cuda.current_device():
        with torch.cuda.device(device):
            kernel[grid](**arguments, num_warps=num_warps, num_stages=STAGES)
    else:
        kernel[grid](**arguments, num_warps=num_warps, num_stages=STAGES)


@dataclass(frozen=True)
class Recorded:
    """One launch that was asked for."""

    kernel: Any
    grid: Grid
    arguments: dict[str, Any]
    num_warps: int

    def signature(self) -> dict[str, str]:
        """Triton's type of every argument, by name."""
        return {name: type_of(name, value) for name, value in self.arguments.items()}

    def aligned(self) -> dict[tuple[int], list[list[Any]]]:
        """What the just-in-time compiler may assume: pointers, and sizes that are multiples of it,
        are divisible by sixteen."""
        aligned_arguments = {}
        for index, (name, value) in enumerate(self.arguments.items()):
            kind = type_of(name, value)
            if kind.startswith("*") or (kind == "i32" and value % 16 == 0):
                aligned_arguments[(index,)] = [["tt.divisibility", 16]]
        return aligned_arguments

    def constants(self) -> dict[str, Any]:
        """The compile-time arguments."""
        return {
            name: value
            for name, value in self.arguments.items()
            if type_of(name, value) == "constexpr"
        }


@dataclass
class Recorder:
    """A `Launch` that runs nothing."""

    launches: list[Recorded] = field(default_factory=list)

    def __call__(
        self, kernel: Any, grid: Grid, arguments: Mapping[str, Any], *, num_warps: int
    ) -> None:
        """Appends to `launches`."""
        self.launches.append(Recorded(kernel, grid, dict(arguments), num_warps))


TYPES = {
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int32: "*i32",
    torch.int64: "*i64",
}


def type_of(name: str, value: Any) -> str:
    """Triton's name of an argument's type; like the just-in-time compiler, it takes a one for a
    constant."""
    if name.isupper() or value is None or (isinstance(value, int) and value == 1):
        return "constexpr"
    if isinstance(value, Tensor):
        return TYPES[value.dtype]
    return "i32" if isinstance(value, int) else "fp32"


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least n."""
    return 1 << max(0, n - 1).bit_length()


def strides(name: str, x: Tensor) -> dict[str, int]:
    """The strides of x (B, C, T) as kernel arguments."""
    return {
        f"{name}_row": x.stride(0),
        f"{name}_channel": x.stride(1),
        f"{name}_frame": x.stride(2),
    }


def warps(elements: int) -> int:
    """Warps for a tile: about 16 elements a thread, so that registers leave room for several
    programs; one to sixteen."""
    return max(1, min(16, elements // 512))
