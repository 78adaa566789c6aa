"""One engine a process: streams of the same model, backend and chunk step with the same one."""

import threading
from weakref import WeakKeyDictionary, WeakValueDictionary

from rtvc.engine.auto import EAGER
from rtvc.engine.backends.base import Backend
from rtvc.engine.backends.eager import TorchBackend
from rtvc.engine.handover import warm
from rtvc.engine.open import begin
from rtvc.models.streaming.interface import Converter

Key = tuple[str, int | None, str]
"""Name of the backend, samples a step, device."""
_OPEN: WeakKeyDictionary[Converter, WeakValueDictionary[Key, Backend]] = WeakKeyDictionary()
"""Engines that streams use, and nobody else keeps alive."""
_LOCK = threading.Lock()


def shared(
    converter: Converter, name: str = "auto", chunk: int | None = None, device: str = "cpu"
) -> Backend:
    """The engine that steps streams of this kind, opened by the first of them and closed after the
    last.

    Args:
        converter: the model, as it is when the first stream opens.
        name: as for `rtvc.engine.open.begin`, whose faster backends take over in all streams.
        chunk: samples a step; None takes the model's hop with torch eager, and what `begin` says
            otherwise.
        device: of torch eager.
    """
    if name in EAGER:
        name, chunk = EAGER[0], chunk or converter.hop
    key = (name, chunk, device)
    with _LOCK:
        engines = _OPEN.setdefault(converter, WeakValueDictionary())
        backend = engines.get(key)
        if backend is None:
            backend = _opened(converter, engines, key)
        while backend.successor is not None:
            backend = backend.successor
        engines[key] = backend
        return backend


def _opened(converter: Converter, engines: WeakValueDictionary[Key, Backend], key: Key) -> Backend:
    name, chunk, device = key
    if name == EAGER[0] and chunk is not None:
        return TorchBackend(converter, chunk, device=device)
    backend, handover = begin(converter, name, chunk)
    if handover is not None:

        def prepare(better: Backend) -> None:
            warm(better)
            engines[key] = better

        handover.prepare = prepare
        handover.start()
    return backend
