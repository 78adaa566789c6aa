"""From names to a running backend: which model, which backend, how long a chunk."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtvc.engine.auto import EAGER, cache_folder, choose
from rtvc.engine.backends.base import Backend
from rtvc.engine.cached import load, open_backend
from rtvc.engine.graph.manifest import MANIFEST
from rtvc.engine.registry import backend_class
from rtvc.errors import ConfigError
from rtvc.files import check_folder, kind
from rtvc.models.streaming.interface import Converter

if TYPE_CHECKING:
    from rtvc.api import VoiceConverter

CHUNKS = (300, 600, 1200)
"""Samples a step that `auto` tries, shortest first: 12.5, 25 and 50 ms at 24 kHz."""
SAFE = 0.6
"""Share of a chunk's duration that the 95th percentile of a step may take for the chunk to be
safe."""


def chunk_of(milliseconds: float, converter: Converter) -> int:
    """Samples of a chunk of so many milliseconds.

    Raises:
        ConfigError: when that is no whole number of the model's hops.
    """
    samples = milliseconds * converter.sample_rate / 1000
    if samples <= 0 or samples % converter.hop:
        hop = 1000 * converter.hop / converter.sample_rate
        raise ConfigError(
            f"a chunk of {milliseconds:g} ms came, a multiple of {hop:g} ms was wanted"
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


def streaming(model: str | None = None) -> tuple["VoiceConverter", Converter]:
    """A loaded model and its streaming converter.

    Raises:
        ConfigError: when the model needs whole recordings.
    """
    from rtvc.api import StreamModel, load

    loaded = load(model)
    if not isinstance(loaded.model, StreamModel):
        raise ConfigError(
            f"the model {loaded.model.name!r} needs whole recordings and cannot stream: leave"
            " --model away"
        )
    return loaded, loaded.model.converter


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
        backend, found = choose(converter, samples)
        if (
            found["measured"][backend.name]["p95_ms"]
            <= SAFE * 1000 * samples / converter.sample_rate
        ):
            break
    return backend, found
