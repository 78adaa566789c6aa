"""What the GPU suite measures of the engine: its backends' steps, concurrent streams through the
pool, and power."""

import copy
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rtvc.benchmarks.gpu.models import CHUNK
from rtvc.benchmarks.gpu.timing import Bench, Unavailable, ladder
from rtvc.percentiles import percentiles

STREAMS = (1, 16, 64, 256, 512, 768, 1024, 1536, 2048)


def backend(name: str, converter: Any, bench: Bench, most: int) -> Any:
    """A backend of the engine on the device.

    Raises:
        Unavailable: for one that this machine cannot run.
    """
    device = bench.device.type
    if name == "torch-eager":
        from rtvc.engine.backends.eager import TorchBackend

        return TorchBackend(copy.deepcopy(converter).to(bench.device), CHUNK, device=device)
    from rtvc.engine.graph.target import Precision, Target

    batch = (1, min(64, most), most)
    if name.startswith("tensorrt"):
        precision: Precision = "fp16" if name == "tensorrt-fp16" else "fp32"
        return tensorrt(converter, Target(precision=precision, batch=batch), bench)
    from rtvc.engine.backends.cudagraph import CudaGraphBackend
    from rtvc.engine.backends.double_buffer import capture, direct

    target = Target(flavour="cuda", kernels=name == "cudagraph-kernels", batch=batch)
    return CudaGraphBackend(
        converter,
        CHUNK,
        target=target,
        device=device,
        record=capture if device == "cuda" else direct,
    )


def tensorrt(converter: Any, target: Any, bench: Bench) -> Any:
    """The step as TensorRT compiles it here.

    Raises:
        Unavailable: without a GPU, TensorRT's compiler, or a version that goes with this torch.
    """
    from rtvc.errors import DependencyError, EngineError

    if bench.device.type != "cuda":
        raise Unavailable("TensorRT engines run on a GPU only")
    try:
        from rtvc.engine.backends.tensorrt import TensorrtBackend
        from rtvc.engine.tensorrt.flavours import resolve

        target = resolve(target)
        with tempfile.TemporaryDirectory() as folder:
            TensorrtBackend.build(converter, CHUNK, Path(folder), target=target)
            return TensorrtBackend(converter, CHUNK, Path(folder), target)
    except (DependencyError, EngineError, ImportError) as problem:
        raise Unavailable(str(problem)) from problem


def engine_step(converter: Any, name: str, bench: Bench) -> list[dict[str, Any]]:
    """Latency of the step as a backend of the engine streams it: states on ping-pong buffers, never
    copied."""
    runner = backend(name, converter, bench, bench.batches[-1])

    def make(batch: int) -> Callable[[], Any]:
        lane = runner.stream(batch)
        x, voice = 0.1 * torch.randn_like(lane.x), torch.zeros_like(lane.voice)
        return lambda: lane(x, voice)

    return ladder(bench, make, graph=False)


def streams(converter: Any, name: str, bench: Bench) -> dict[str, Any]:
    """Concurrent sessions through the pool, every one with a chunk each tick, until the 99th
    percentile misses the tick.

    `tick` is all that the pool does, edges at 24 kHz included; `step` is the backend's share,
    copies to and from it included.
    """
    from rtvc.engine.streams.capacity import Capacity, StepTimes
    from rtvc.engine.streams.pool import Pool
    from rtvc.voices.voice import Voice

    counts = (1, 2) if bench.dry else STREAMS
    runner = backend(name, converter, bench, counts[-1])
    tick = 1000 * CHUNK / runner.sample_rate
    style, block = (
        Voice(*(0.1 * torch.randn(2, 128))),
        (0.05 * np.random.default_rng(0).standard_normal(CHUNK)).astype(np.float32),
    )
    rows: list[dict[str, Any]] = []
    for count in counts:
        if not bench.dry and bench.left < 5:
            break
        pool = Pool(runner, slots=count, capacity=Capacity(tick / 1000, {}, count))
        sessions = [pool.join(style) for _ in range(count)]
        ticks: list[float] = []
        for index in range(4 if bench.dry else 130):
            for session in sessions:
                session.push(block)
            if index == (1 if bench.dry else 10):
                pool.times, ticks = StepTimes(), []
            began = time.perf_counter()
            pool.tick()
            ticks.append(time.perf_counter() - began)
        row = {
            **percentiles(ticks, "tick_", digits=4, shares=(50, 99)),
            **percentiles(pool.times.times, "step_", digits=4, shares=(50, 99)),
        }
        fits = {"fits": row["tick_p99_ms"] <= tick, "step_fits": row["step_p99_ms"] <= tick}
        rows.append({"streams": count, **row, **fits})
        if not bench.dry and (row["step_p99_ms"] > tick or row["tick_p99_ms"] > 4 * tick):
            break
    best = {
        key: max((row["streams"] for row in rows if row[fits]), default=0)
        for key, fits in (("sustained", "fits"), ("by_steps", "step_fits"))
    }
    return {"tick_ms": tick, **best, "rows": rows}


def watched(seconds: float, work: Callable[[], Any]) -> list[float]:
    """Watts, asked again and again by another thread while `work` is called without pause."""
    from rtvc.benchmarks.gpu.stubs import smi

    watts, stop = list[float](), threading.Event()

    def ask() -> None:
        while not stop.is_set():
            reading = smi("power.draw")
            if reading is not None:
                watts.append(float(reading["power.draw"]))
            stop.wait(0.05)

    asking = threading.Thread(target=ask)
    asking.start()
    until = time.time() + seconds
    while time.time() < until:
        for _ in range(20):
            work()
        torch.cuda.synchronize()
    stop.set()
    asking.join()
    return watts


def power(converter: Any, bench: Bench) -> dict[str, Any]:
    """Watts at rest and under steps of the most rows without pause, and what a stream takes of
    energy and memory.

    Raises:
        Unavailable: where nvidia-smi does not tell.
    """
    from rtvc.benchmarks.gpu.stubs import smi

    if bench.device.type != "cuda":
        raise Unavailable("a dry run has no GPU whose power could be read")
    batch = bench.batches[-1]
    rest = smi("power.draw", "memory.used", "temperature.gpu", "clocks.sm")
    if rest is None:
        raise Unavailable("nvidia-smi does not answer")
    runner = backend("cudagraph-kernels", converter, bench, batch)
    lane = runner.stream(batch)
    x, voice = torch.randn_like(lane.x), torch.zeros_like(lane.voice)
    with torch.inference_mode():
        watts = watched(4.0, lambda: lane(x, voice))
    busy = smi("power.draw", "memory.used", "temperature.gpu", "clocks.sm")
    state = runner.layout.size * 4
    return {
        "rest": rest,
        "busy": busy,
        "rows": batch,
        "watts": watts,
        "peak_mib": torch.cuda.max_memory_allocated() / 2**20,
        "state_bytes_a_stream": state,
    }
