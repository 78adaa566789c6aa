"""The parts of the GPU suite, the most important first, and the process that runs them one after
another."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch

from rtvc.benchmarks.gpu import engine, models
from rtvc.benchmarks.gpu.record import Record
from rtvc.benchmarks.gpu.stubs import facts, shipped, smi
from rtvc.benchmarks.gpu.timing import Bench, Unavailable
from rtvc.benchmarks.kernel.run import STEMS, Size, bandwidth, cases, check, measure

SIZES: tuple[Size, ...] = ("streaming", "large")
LOST = 3
"""Exit status of a process whose GPU no longer answers: the parts that are left need a new one."""


@dataclass(frozen=True)
class Part:
    """A piece of the suite.

    Attributes:
        name: its key in the results.
        cost: seconds that it is expected to take on a GPU; it is skipped when less is left.
        run: gives the result.
    """

    name: str
    cost: float
    run: Callable[[Bench], Any]


@lru_cache(maxsize=2)
def converter(dry: bool) -> tuple[Any, str]:
    """The streaming model and what its weights are."""
    return shipped(tiny=dry)


@lru_cache(maxsize=2)
def copy_speed(device: torch.device) -> float:
    """Bytes a second of a copy."""
    return bandwidth(device, 1 << (30 if device.type == "cuda" else 22))


def device(bench: Bench) -> dict[str, Any]:
    """What the machine is."""
    facts: dict[str, Any] = {
        "copy_gb_s": copy_speed(bench.device) / 1e9,
        "weights": converter(bench.dry)[1],
    }
    if bench.device.type == "cuda":
        about = torch.cuda.get_device_properties(bench.device)
        facts |= {
            "capability": f"{about.major}.{about.minor}",
            "multiprocessors": about.multi_processor_count,
        }
        facts |= {
            "memory_gib": round(about.total_memory / 2**30, 1),
            "l2_mib": getattr(about, "L2_cache_size", 0) / 2**20,
            "cuda": torch.version.cuda,
        }
        facts |= {"smi": smi("driver_version", "power.limit", "clocks.max.sm", "clocks.max.memory")}
    return facts


def correctness(stem: str, bench: Bench) -> dict[str, Any]:
    """Every way of a kernel at odd sizes and, on a GPU, at streaming sizes, in every precision,
    against float64."""
    dtypes = (torch.float32,) if bench.dry else (torch.float32, torch.float16, torch.bfloat16)
    sizes: tuple[Size, ...] = ("odd",) if bench.dry else ("odd", "streaming")
    rows = [
        check(case, bench.device, dtype)
        for size in sizes
        for case in cases(stem, size)
        for dtype in dtypes
    ]
    right = all(value["right"] for row in rows for value in row.values() if isinstance(value, dict))
    return {"right": right, "rows": rows}


def kernel(stem: str, size: Size, bench: Bench) -> list[dict[str, Any]]:
    """Times at one size: float32, and past the cache bfloat16 too, without `torch.compile`, which
    takes seconds a case."""
    if bench.dry:
        case = next(cases(stem, "odd"))
        return [
            {
                "size": size,
                **measure(
                    case,
                    bench.device,
                    torch.float32,
                    copy_speed(bench.device),
                    seconds=0.001,
                    compiled=False,
                ),
            }
        ]
    rows, began = list[dict[str, Any]](), time.time()
    for dtype in (torch.float32, torch.bfloat16) if size == "large" else (torch.float32,):
        for case in cases(stem, size):
            if bench.left > 5:
                compiled = dtype == torch.float32 and time.time() - began < 60
                rows.append(
                    {
                        "size": size,
                        **measure(
                            case, bench.device, dtype, copy_speed(bench.device), compiled=compiled
                        ),
                    }
                )
                torch.cuda.empty_cache()
    return rows


def step(way: str, bench: Bench) -> list[dict[str, Any]]:
    """See `gpu_models.step`."""
    return models.step(converter(bench.dry)[0], way, bench)


def engine_step(name: str, bench: Bench) -> list[dict[str, Any]]:
    """See `gpu_engine.engine_step`."""
    return engine.engine_step(converter(bench.dry)[0], name, bench)


def component(name: str, way: str, bench: Bench) -> list[dict[str, Any]]:
    """See `gpu_models.component`."""
    return models.component(converter(bench.dry)[0], name, way, bench)


def streams(name: str, bench: Bench) -> dict[str, Any]:
    """See `gpu_engine.streams`."""
    return engine.streams(converter(bench.dry)[0], name, bench)


def parts() -> list[Part]:
    """Everything, in order."""
    streamed = ("mel", "mel encoder", "f0", "decoder", "istft")
    paper = (
        "mel encoder",
        "style encoder",
        "pitch extractor",
        "decoder",
        "iSTFTNet decoder",
        "HiFi-GAN vocoder",
    )
    compiled = ("adain", "istft", "frame_norm", "block_step", "source")
    return [
        Part("device", 3, device),
        *(Part(f"correctness/{stem}", 6, partial(correctness, stem)) for stem in STEMS),
        Part(
            "correctness/model", 5, lambda bench: models.exactness(converter(bench.dry)[0], bench)
        ),
        Part("step/cudagraph-kernels", 30, partial(engine_step, "cudagraph-kernels")),
        Part("step/fused", 8, partial(step, "fused")),
        Part("step/eager", 8, partial(step, "eager")),
        Part("streams/cudagraph-kernels", 20, partial(streams, "cudagraph-kernels")),
        *(
            Part(f"kernels/{stem}/{size}", 15, partial(kernel, stem, size))
            for stem in compiled
            for size in SIZES
        ),
        Part("streams/cudagraph", 15, partial(streams, "cudagraph")),
        Part("power", 6, lambda bench: engine.power(converter(bench.dry)[0], bench)),
        Part("paper/conversion/eager", 10, partial(models.conversion, "eager")),
        Part("paper/conversion/fused", 10, partial(models.conversion, "fused")),
        Part("step/compile", 60, partial(step, "compile")),
        Part("step/fused-compile", 60, partial(step, "fused-compile")),
        *(
            Part(f"components/{name}/{way}", 4, partial(component, name, way))
            for way in ("eager", "fused")
            for name in streamed
        ),
        *(
            Part(f"paper/{name}/{way}", 5, partial(models.paper, name, way))
            for way in ("eager", "fused")
            for name in paper
        ),
        Part("streams/torch-eager", 10, partial(streams, "torch-eager")),
        Part("step/tensorrt-fp32", 90, partial(engine_step, "tensorrt-fp32")),
        Part("step/tensorrt-fp16", 90, partial(engine_step, "tensorrt-fp16")),
        Part("streams/tensorrt-fp16", 100, partial(streams, "tensorrt-fp16")),
        *(
            Part(f"components/{name}/tensorrt", 30, partial(component, name, "tensorrt"))
            for name in streamed
        ),
        *(
            Part(f"components/{name}/compile", 30, partial(component, name, "compile"))
            for name in streamed
        ),
        *(
            Part(f"paper/{name}/compile", 40, partial(models.paper, name, "compile"))
            for name in paper
        ),
        *(
            Part(f"paper/{name}/tensorrt", 40, partial(models.paper, name, "tensorrt"))
            for name in paper
        ),
    ]


def work(record: Record, deadline: float, dry: bool, only: tuple[str, ...] = ()) -> int:
    """Runs what is not finished, writing the record after every part; returns the exit status of
    the process."""
    if not dry and not torch.cuda.is_available():
        print("torch sees no GPU in the working process", file=sys.stderr)
        return 1
    torch.set_num_threads(1)
    where = torch.device("cpu" if dry else "cuda")
    bench = Bench(where, dry, 0.001 if dry else 0.2, (1, 3) if dry else Bench.batches, deadline)
    record.note(**facts())
    todo = [
        part
        for part in parts()
        if part.name.startswith(only or "") and not record.finished(part.name)
    ]
    failed = [part for part in todo if record.parts.get(part.name, {}).get("status") == "failed"]
    for part in [
        *(part for part in todo if part not in failed),
        *failed,
    ]:  # what failed before comes last
        if bench.left < (0 if dry else part.cost):
            record.end(
                part.name,
                "skipped",
                error=(
                    f"{bench.left:.0f} s were left, about {part.cost:.0f} s are needed: run the"
                    " suite again"
                ),
            )
            continue
        record.begin(part.name)
        began = time.time()
        try:
            record.end(part.name, "done", device=where.type, result=part.run(bench))
        except Unavailable as reason:
            record.end(part.name, "unavailable", error=str(reason))
        except Exception as problem:
            record.end(part.name, "failed", error=f"{type(problem).__name__}: {problem}"[:2000])
            if where.type == "cuda" and not answers():
                return LOST
        state = record.parts[part.name]
        print(
            f"{part.name}: {state['status']} in {time.time() - began:.1f} s"
            f" {state.get('error', '')}",
            file=sys.stderr,
            flush=True,
        )
    return 0


def answers() -> bool:
    """Whether the GPU still works in this process: an illegal access spoils it for good."""
    try:
        torch.cuda.empty_cache()
        torch.zeros(1, device="cuda").item()
    except Exception:
        return False
    return True
