"""From names to a running backend: which backend, how long a chunk, and whether it waits until the
best is built or begins at once."""

import time
from pathlib import Path
from typing import Any

from rtvc.engine.auto import CANDIDATES, EAGER, cache_folder, choose, key, recall, worthwhile
from rtvc.engine.backends.base import Backend
from rtvc.engine.backends.eager import TorchBackend
from rtvc.engine.cached import load, open_backend, prebuilt
from rtvc.engine.graph.manifest import MANIFEST
from rtvc.engine.handover import Handover
from rtvc.engine.registry import backend_class
from rtvc.engine.streams.capacity import step_time
from rtvc.errors import ConfigError
from rtvc.files import check_folder, kind
from rtvc.models.streaming.interface import Converter

CHUNKS = (300, 600, 1200)
"""Samples a step that `auto` tries, shortest first: 12.5, 25 and 50 ms at 24 kHz."""
SAFE = 0.6
"""Share of a chunk's duration that the 95th percentile of a step may take for the chunk to be
safe."""
TRIES = 8
"""Steps by which torch eager shows whether it can begin."""


def chunk_of(milliseconds: float, converter: Converter) -> int:
    """Samples of a chunk of so many milliseconds.

    Raises:
        ConfigError: when that is no whole number of the model's hops.
    """
    samples = milliseconds * converter.sample_rate / 1000
    if samples <= 0 or samples % converter.hop:
        hop = 1000 * converter.hop / converter.sample_rate
        raise ConfigError(
            f"expected a chunk of a multiple of {hop:g} ms, got {milliseconds:g} ms: try"
            f" {2 * hop:g}"
        )
    return int(samples)


def check_engine(name: str) -> None:
    """To be asked before the model is loaded: whether `open_engine` knows the name, and can keep
    what it builds.

    Raises:
        ConfigError: the cache folder is none.
        EngineError: no backend of that name.
        OutputError: nothing can be written to the cache folder.
    """
    if kind(Path(name) / MANIFEST) == "file" or name in EAGER:
        return
    if name != "auto":
        backend_class(name)
    check_folder(cache_folder())


def open_engine(
    converter: Converter, name: str = "auto", chunk: int | None = None
) -> tuple[Backend, dict[str, Any]]:
    """A backend that is ready to step, and what `auto` measured.

    Args:
        converter: the model.
        name: of a backend, an engine directory, or `auto` for the fastest backend of this machine.
        chunk: samples a step; None takes the shortest that is safe with `auto`, and 600 otherwise.
    """
    check_engine(name)
    if kind(Path(name) / MANIFEST) == "file":
        built = load(Path(name), converter)
        if chunk not in (None, built.chunk):
            raise ConfigError(
                f"a chunk of {chunk} samples came, the engine in {name} steps {built.chunk}: leave"
                " --chunk away, or build another"
            )
        return built, {}
    if name != "auto":
        return open_backend(converter, name, chunk or 600, cache_folder()), {}
    for samples in [chunk] if chunk else CHUNKS:
        backend, measured = choose(converter, samples)
        if safe(measured["measured"][backend.name]["p95_ms"], samples, converter):
            break
    return backend, measured


def safe(step_ms: float, samples: int, converter: Converter) -> bool:
    """Whether steps of so many milliseconds leave room enough in a chunk of so many samples."""
    return step_ms <= SAFE * 1000 * samples / converter.sample_rate


def begin(
    converter: Converter, name: str = "auto", chunk: int | None = None
) -> tuple[Backend, Handover | None]:
    """A backend that can step now, and what looks for a faster one beside it, not yet started.

    What `auto` found before is loaded. On a machine that never looked, torch eager begins, at the
    shortest chunk that is safe with it by the processor's time, or at the longest where none is. A
    backend that is asked for by name is waited for.

    Args:
        converter: the model; it must pickle to be built beside.
        name: of a backend, an engine directory, or `auto`.
        chunk: samples a step; None takes the shortest that is safe, and 600 with a named backend.
    """
    if name != "auto":
        return open_engine(converter, name, chunk)[0], None
    check_engine(name)
    cache, names = cache_folder(), worthwhile(CANDIDATES)
    tried = [chunk] if chunk else CHUNKS
    for samples in tried:
        known = recall(cache, key(converter, samples, names))
        ready = known and prebuilt(converter, known["backend"], samples, cache)
        if known and ready:
            step_ms = known["measured"][ready.name]["cpu_ms"]
            if samples == tried[-1] or safe(step_ms, samples, converter):
                return ready, None
            continue
        eager = TorchBackend(converter, samples)
        if samples == tried[-1] or safe(processor_ms(eager), samples, converter):
            break
    shorter = [each for each in tried if each < samples]
    return eager, Handover(eager, converter, [samples, *shorter], cache, CANDIDATES)


def processor_ms(backend: Backend) -> float:
    """Milliseconds of the processor that a step of one session takes: a machine that is busy now
    is not slow for that."""
    return 1000 * step_time(backend, 1, TRIES, time.thread_time).percentile(25)
