"""From settings to a service that is ready to serve: what the command line and a replica of a
larger service both call."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, IPvAnyAddress, SecretStr

from rtvc.engine.admission.access import Access
from rtvc.engine.admission.limits import ServerLimits
from rtvc.engine.backends.base import Backend
from rtvc.engine.loading import streaming
from rtvc.engine.open import begin, chunk_of
from rtvc.engine.server.service import Service
from rtvc.engine.streams.capacity import Capacity, measure
from rtvc.engine.voices.store import VoiceStore
from rtvc.errors import ConfigError, EngineError
from rtvc.voices.voice import Voice


class ServeConfig(BaseModel):
    """A server's settings.

    Attributes:
        voices: folder of the voice files; uploads are stored there, too.
        model: a file of weights; None takes the shipped streaming model.
        lookahead: milliseconds that a model with a latency dial hears ahead; None: its usual ones.
        backend: what runs the model, `auto` for the fastest of this machine.
        chunk_ms: milliseconds a step; None takes the shortest that is safe here.
        measure: how many sessions the machine holds; otherwise `limits.sessions` is believed.
        host: that it listens on, whose own page is let in.
        token: that clients must send; None lets everybody in.
        origins: of pages that are let in besides the server's own.
        allow_no_origin: lets programs without an Origin in, if they know the token.
        proxies: addresses of proxies in front, whose X-Forwarded-For names the client.
        fit: steps of fitting uploaded voices, see `rtvc.voices.fit`.
        limits: what clients may ask.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    voices: Path
    model: str | None = None
    lookahead: float | None = Field(default=None, ge=0)
    backend: str = "auto"
    chunk_ms: float | None = Field(default=None, gt=0)
    measure: bool = True
    host: str = "127.0.0.1"
    token: SecretStr | None = None
    origins: Sequence[str] = ()
    allow_no_origin: bool = False
    proxies: Sequence[IPvAnyAddress] = ()
    fit: int = Field(default=0, ge=0)
    limits: ServerLimits = ServerLimits()


S = TypeVar("S", bound=Service)


def open_service(config: ServeConfig) -> Service:
    """A service with its model loaded, warmed and its capacity measured; takes seconds.

    Raises:
        ConfigError: settings that name what does not exist.
        EngineError: the backend cannot be had, or is too slow for a single session.
    """
    return open_as(Service, config)


def open_as(make_service: Callable[..., S], config: ServeConfig) -> S:
    """What `make_service` makes of the arguments of a `Service`; as ready as of `open_service`.

    On a machine that was never measured it begins in plain torch; faster backends take over in all
    its sessions as they become ready, and it admits as many more.

    Raises:
        ConfigError: settings that name what does not exist.
        EngineError: the backend cannot be had, or is too slow for a single session.
    """
    access = Access(config.token, config.origins, config.host, config.allow_no_origin)
    loaded, converter = streaming(config.model, config.lookahead)
    if config.fit and not loaded.fittable:
        raise ConfigError(
            f"voices of the model {loaded.model.name!r} cannot be fitted: leave --fit out"
        )
    chunk = None if config.chunk_ms is None else chunk_of(config.chunk_ms, converter)
    backend, handover = begin(converter, config.backend, chunk)
    tick, most = backend.chunk / backend.sample_rate, config.limits.sessions

    def holds(candidate: Backend) -> Capacity:
        return measure(candidate, most=most) if config.measure else Capacity(tick, {}, most)

    capacity = holds(backend)
    if handover is not None and not capacity.rows:
        # A machine that is busy now is not slow for that: it begins, with what it holds by the
        # processor's time.
        capacity = measure(backend, most=most, clock=time.thread_time)
    if handover is not None and not capacity.rows:
        backend = handover.awaited()
        capacity, handover = holds(backend), None
    if not capacity.rows:
        slow = (
            f"one step takes {1000 * capacity.p95[1]:.1f} ms of the {1000 * tick:g} ms that it may"
        )
        raise EngineError(
            f"{backend.name} is too slow here for a single session ({slow}): take another --backend"
            " or a longer --chunk"
        )
    store = VoiceStore(
        config.voices, loaded.model.space, config.limits.voices, weights=loaded.weights
    )

    def make(samples: NDArray[np.float32], rate: int, name: str) -> Voice:
        return loaded.voice((samples, rate), name=name, fit=config.fit)

    service = make_service(
        backend, store, make, config.limits, access, capacity=capacity, name=version()
    )
    service.proxies |= {str(address) for address in config.proxies}
    if handover is not None:

        def prepare(better: Backend) -> None:
            capacity = holds(better)  # measured beside those who speak: if anything too low
            if capacity.rows > service.pool.capacity.rows:
                service.pool.capacity = capacity

        handover.prepare = prepare
        handover.start()
    return service


def version() -> str:
    """What the server calls itself."""
    from importlib.metadata import version

    return f"rtvc/{version('rtvc-engine')}"
