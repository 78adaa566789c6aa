"""What `rtvc bench components` times: every part of the path from microphone to loudspeaker, and
the whole step by backend.

Each case is a function without arguments that does one chunk's work. They run one after another in
one process, so that ratios hold on a busy machine too.
"""

import gc
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from rtvc.engine.auto import cache_folder
from rtvc.engine.cached import open_backend
from rtvc.engine.trial import probe
from rtvc.errors import RtvcError
from rtvc.models.streaming.analysis import PITCH_BINS
from rtvc.percentiles import percentiles
from rtvc.voices.voice import Voice

CHUNKS_MS = (12.5, 25.0, 50.0, 100.0)
"""Chunk sizes of the model: multiples of its hop. Whole sessions, edges, gate and ring also run at
10, 20 and 40 ms."""
EDGE_CHUNKS_MS = (10.0, 12.5, 20.0, 25.0, 40.0, 100.0)
BACKENDS = (
    "torch-eager",
    "onnx",
    "onnx-int8",
    "openvino",
    "openvino-bf16",
    "openvino-int8",
    "torch-compile",
)


@dataclass(frozen=True)
class Case:
    """One thing to time.

    Attributes:
        component: its name.
        backend: what runs it.
        chunk_ms: audio a call, in milliseconds.
        make: prepares it and returns the call.
    """

    component: str
    backend: str
    chunk_ms: float
    make: Callable[[], Callable[[], Any]]


def step(converter: Any, backend: str, chunk: int) -> Callable[[], Any]:
    """The whole step, state carried from call to call."""
    runner = open_backend(converter, backend, chunk, cache_folder())
    generator = torch.Generator().manual_seed(0)
    voice = runner.condition(
        Voice(
            torch.randn(128, generator=generator) * 0.1, torch.randn(128, generator=generator) * 0.1
        )
    )
    signal, state, at = probe(chunk, 32), runner.initial(1), 0

    def call() -> None:
        nonlocal state, at
        _, state = runner.step(signal[at], voice, state)
        at = (at + 1) % len(signal)

    return call


def session(converter: Any, backend: str, block_ms: float) -> Callable[[], Any]:
    """A session at 48 kHz, both edges included, with 12.5 ms steps: a block of any size costs the
    steps that it completes."""
    from rtvc.engine.streams.session import Session

    block = (np.random.default_rng(0).standard_normal(int(48 * block_ms)) * 0.1).astype(np.float32)
    stream = Session(
        open_backend(converter, backend, converter.hop, cache_folder()),
        Voice(torch.zeros(128), torch.zeros(128)),
        sample_rate=48_000,
    )
    return lambda: stream.push(block)


def parts(converter: Any, chunk: int) -> dict[str, Callable[[], Callable[[], Any]]]:
    """The parts of the streaming model, in torch: each is called with its own state, which it
    carries."""
    signal = probe(chunk, 1)[0]
    with torch.inference_mode():
        features, _ = converter.analysis(signal, converter.analysis.initial(1))
        bands = features.shape[1] - PITCH_BINS
        frames = features.shape[-1]
        content, _ = converter.encoder(features[:, :bands], converter.encoder.initial(1))

    def carried(
        layer: Any, *arguments: Any, after: tuple[Any, ...] = ()
    ) -> Callable[[], Callable[[], Any]]:
        def make() -> Callable[[], Any]:
            state = layer.initial(1)

            def call() -> None:
                nonlocal state
                with torch.inference_mode():
                    _, state = layer(*arguments, *after, state)

            return call

        return make

    mel, low = features[:, :bands], features[:, bands:]
    track = torch.full((1, frames), 5.0), torch.ones(1, frames)
    style = torch.zeros(1, converter.decoder.memory_size + converter.decoder.style_size)
    spectrum = torch.randn(1, converter.decoder.istft.matrix.shape[0], frames * 2)
    reference = probe(24_000, 3).reshape(1, 1, -1)

    def styles() -> Callable[[], Any]:
        def call() -> None:
            with torch.inference_mode():
                converter.styles(reference)

        return call

    return {
        "mel": carried(converter.analysis, signal),
        "mel-encoder": carried(converter.encoder, mel),
        "f0": carried(converter.pitch, low),
        "prosody": carried(
            converter.prosody, track[0], track[1], torch.zeros(1, frames), torch.ones(1, 5)
        ),
        "decoder": carried(
            converter.decoder, content, track[0], track[1], torch.zeros(1, 2, frames), style
        ),
        "istft": carried(converter.decoder.istft, spectrum),
        "style-encoders-3s": styles,
    }


def edges(chunk_ms: float) -> dict[str, Callable[[], Callable[[], Any]]]:
    """The parts around the model: resamplers, gate, ring; blocks at 48 kHz."""
    block = (np.random.default_rng(0).standard_normal(int(48 * chunk_ms)) * 0.1).astype(np.float32)

    def resampler() -> Callable[[], Any]:
        from rtvc.engine.streams.resampler import Resampler

        edge = Resampler(48_000, 24_000)
        return lambda: edge.push(block)

    def gate() -> Callable[[], Any]:
        from rtvc.engine.streams.gate import Gate

        guard = Gate(48_000)
        return lambda: guard.decide(block)

    def ring() -> Callable[[], Any]:
        from rtvc.engine.callback.ring import Ring

        queue, out = Ring(48_000), np.empty_like(block)

        def call() -> None:
            queue.write(block)
            queue.read(out)

        return call

    return {"resampler-48k-24k": resampler, "gate": gate, "ring": ring}


def cases(
    converter: Any, backends: tuple[str, ...] = BACKENDS, chunks: tuple[float, ...] | None = None
) -> Iterator[Case]:
    """Everything to time; what this machine lacks is left out by whoever runs `make` and hears an
    `RtvcError`."""
    for chunk_ms in chunks or CHUNKS_MS:
        samples = round(24 * chunk_ms)
        if samples % converter.hop:
            continue
        for backend in backends:
            yield Case("step", backend, chunk_ms, partial(step, converter, backend, samples))
        if hasattr(converter, "decoder"):
            for name, make in parts(converter, samples).items():
                yield Case(name, "torch-eager", chunk_ms, make)
    for chunk_ms in chunks or EDGE_CHUNKS_MS:
        for backend in backends:
            whole = partial(session, converter, backend, chunk_ms)
            yield Case("session-48k", backend, chunk_ms, whole)
        for name, make in edges(chunk_ms).items():
            yield Case(
                name,
                "onnxruntime" if name == "gate" else "numba" if name == "ring" else "numpy",
                chunk_ms,
                make,
            )


def measure(case: Case, threads: int, rounds: int) -> dict[str, Any] | None:
    """The row of one case; None where this machine lacks what it needs. A tenth as many calls warm
    up, and no garbage is collected while calls are timed."""
    torch.set_num_threads(threads)
    try:
        call = case.make()
    except RtvcError:
        return None
    first = timed(call)
    for _ in range(max(1, rounds // 10)):
        call()
    collecting = gc.isenabled()
    gc.disable()
    try:
        times = [timed(call) for _ in range(rounds)]
    finally:
        if collecting:
            gc.enable()
    told = percentiles(times, digits=4)
    return {
        "component": case.component,
        "backend": case.backend,
        "threads": threads,
        "chunk_ms": case.chunk_ms,
        **told,
        "rtf": told["p50_ms"] / case.chunk_ms,
        "first_ms": 1000 * first,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def timed(call: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
