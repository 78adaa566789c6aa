"""What a kernel is worth: its error against float64 and its time against torch eager,
`torch.compile` and the memory's own speed.

`python -m rtvc.benchmarks.kernel.run [STEM ...]` prints one JSON line a case; on a CPU it checks
and times the plain torch references. Each kernel's cases are in `benchmarks/kernel/STEM.py`, beside
`kernels/STEM.py` and `tests/kernels/test_kernel_STEM.py`.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import torch
from torch import Tensor

STEMS = ("adain", "frame_norm", "istft", "source", "block_step")
"""All kernels, the most important first."""
Size = Literal["odd", "streaming", "large"]
"""`odd`: small and unaligned, for correctness. `streaming`: what a chunk of 25 ms asks for, where
launches count. `large`: past any cache, where bytes count."""
Way = Callable[..., tuple[Tensor, ...]]
"""An implementation: the case's inputs -> its outputs."""


@dataclass(frozen=True)
class Case:
    """One operation at one size.

    Attributes:
        kernel: stem of its file.
        name: what of it, and at which shape.
        make: draws the inputs on a device; float32 tensors among them are cast to the dtype under
            test where `cast` says so.
        plain: the same by stock torch operations, in the precision of its inputs; what eager and
            `torch.compile` run.
        ways: the kernel's implementations by name: `operator` as models call it, `triton` and
            `cuda` the launchers alone.
        fixed: indices of inputs that keep their dtype (states and tables in float32).
        traffic: bytes that must move; None: all inputs and outputs once.
        compiled: makes what `torch.compile` runs; None: it compiles `plain`.
    """

    kernel: str
    name: str
    make: Callable[[torch.device], tuple[Tensor | None, ...]]
    plain: Way
    ways: Mapping[str, Way]
    fixed: Sequence[int] = ()
    traffic: Callable[[Sequence[Tensor | None]], int] | None = None
    compiled: Callable[[], Way] | None = None

    def inputs(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor | None, ...]:
        """Fresh inputs."""
        drawn = self.make(device)
        return tuple(
            x.to(dtype) if x is not None and x.dtype == torch.float32 and i not in self.fixed else x
            for i, x in enumerate(drawn)
        )


def cases(stem: str, size: Size) -> Iterator[Case]:
    """The cases of one kernel."""
    yield from import_module(f"rtvc.benchmarks.kernel.{stem}").cases(size)


def error(got: Tensor, exact: Tensor) -> float:
    """Root mean square of the difference; infinite where something is not a number or shapes
    differ."""
    if got.shape != exact.shape or not got.isfinite().all():
        return float("inf")
    return (got.double() - exact.double()).square().mean().sqrt().item()


def allowed(plain: Tensor, exact: Tensor, dtype: torch.dtype) -> float:
    """Twice the error of plain torch, or, where that happens to be exact, half a unit in the last
    place of the typical value.

    What is float64 in either, a phase, may add up in another order: 1e-12.
    """
    if dtype == torch.float64:
        return 1e-12
    return max(
        2 * error(plain, exact),
        torch.finfo(dtype).eps / 2 * exact.double().square().mean().sqrt().item(),
    )


def check(case: Case, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Every way's error over what is allowed, its worst output; at most 1 is right."""
    torch.manual_seed(0)
    inputs = case.inputs(device, dtype)
    plain = case.plain(*inputs)
    exact = case.plain(
        *(x.double() if x is not None and x.is_floating_point() else x for x in inputs)
    )
    row: dict[str, Any] = {
        "kernel": case.kernel,
        "case": case.name,
        "dtype": str(dtype).removeprefix("torch."),
    }
    for name, way in case.ways.items():
        try:
            outputs = way(*inputs)
            ratios = [
                error(a, c) / max(allowed(b, c, a.dtype), 1e-300)
                for a, b, c in zip(outputs, plain, exact, strict=True)
                if c.numel()
            ]
            row[name] = {"error_over_allowed": max(ratios), "right": max(ratios) <= 1}
        except Exception as problem:
            row[name] = {"error": f"{type(problem).__name__}: {problem}"[:500], "right": False}
    return row


def repeated(call: Callable[[], Any], device: torch.device, seconds: float) -> float:
    """Seconds a call, host and device together: calls follow each other for about `seconds` and the
    last is waited for."""
    wait: Callable[[], Any] = torch.cuda.synchronize if device.type == "cuda" else nothing
    call()
    wait()
    count, spent = 1, 0.0
    while True:
        began = time.perf_counter()
        for _ in range(count):
            call()
        wait()
        spent = time.perf_counter() - began
        if spent >= seconds / 2:
            return spent / count
        count = max(count + 1, min(10 * count, int(count * seconds / max(spent, 1e-9))))


def nothing() -> None:
    """A CPU has done its work when a call returns."""


def on_device(call: Callable[[], Any], seconds: float) -> float:
    """Seconds a call that the GPU itself spends: several calls captured into one CUDA graph, so
    that no launch is waited for."""
    new_stream: Any = torch.cuda.Stream
    stream = new_stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    synchronize: Any = torch.cuda.synchronize
    synchronize()
    once = repeated(call, torch.device("cuda"), 0.01)
    count = max(1, min(50, int(seconds / 10 / once)))
    graph: Any = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for _ in range(count):
            call()
    return repeated(graph.replay, torch.device("cuda"), seconds) / count


def bandwidth(device: torch.device, size: int = 1 << 30) -> float:
    """Bytes a second that a copy reads and writes."""
    x = torch.empty(size, dtype=torch.uint8, device=device)
    y = torch.empty_like(x)
    return 2 * size / repeated(lambda: y.copy_(x), device, 0.2)


def size_of(tensors: Sequence[Tensor | None]) -> int:
    """Bytes of some tensors, as they are strided."""
    return sum(x.numel() * x.element_size() for x in tensors if x is not None)


def measure(
    case: Case,
    device: torch.device,
    dtype: torch.dtype,
    copy: float,
    *,
    seconds: float = 0.1,
    compiled: bool = True,
) -> dict[str, Any]:
    """Microseconds of every way, of eager torch and of `torch.compile`, and the share of the
    memory's speed that each reaches.

    Args:
        case: what.
        device: where.
        dtype: of the inputs.
        copy: bytes a second of a copy.
        seconds: about as long is each timed.
        compiled: whether `torch.compile` is timed too.
    """
    inputs = case.inputs(device, dtype)
    with torch.no_grad():
        traffic = (
            case.traffic(inputs) if case.traffic else size_of(inputs) + size_of(case.plain(*inputs))
        )
    floor = traffic / copy
    row: dict[str, Any] = {
        "kernel": case.kernel,
        "case": case.name,
        "dtype": str(dtype).removeprefix("torch."),
    }
    row |= {"mib": traffic / 2**20, "floor_us": 1e6 * floor}
    # On a CPU the launchers would be interpreted, which is of use to check them, not to time them.
    ways = {
        **(case.ways if device.type == "cuda" else {"operator": case.ways["operator"]}),
        "eager": case.plain,
    }
    if compiled:
        torch._dynamo.reset()
        ways["compile"] = (
            case.compiled() if case.compiled else torch.compile(case.plain, dynamic=False)
        )
    for name, way in ways.items():
        call = lambda way=way: way(*inputs)  # noqa: E731
        try:
            row[name] = {"call_us": 1e6 * repeated(call, device, seconds)}
            if device.type == "cuda":
                alone = on_device(call, seconds)
                row[name] |= {"device_us": 1e6 * alone, "share_of_floor": floor / alone}
        except Exception as problem:
            row[name] = {"error": f"{type(problem).__name__}: {problem}"[:500]}
    return row


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks and times; one JSON line a case."""
    parser = argparse.ArgumentParser(
        prog="python -m rtvc.benchmarks.kernel.run", description=__doc__
    )
    parser.add_argument("stems", nargs="*", choices=[*STEMS, []], help="kernels; by default all")
    parser.add_argument(
        "--dtype", nargs="+", choices=["float32", "float16", "bfloat16"], default=["float32"]
    )
    parser.add_argument(
        "--size", nargs="+", choices=["odd", "streaming", "large"], default=["odd", "streaming"]
    )
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    options = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    copy = bandwidth(device, 1 << (30 if device.type == "cuda" else 26))
    for stem in options.stems or STEMS:
        for size in options.size:
            for dtype in (getattr(torch, name) for name in options.dtype):
                for case in cases(stem, size):
                    check_row = check(case, device, dtype) if size == "odd" else {}
                    times = measure(case, device, dtype, copy, compiled=not options.no_compile)
                    print(
                        json.dumps(
                            {"device": device.type, "size": size, "check": check_row, **times}
                        ),
                        flush=True,
                    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
