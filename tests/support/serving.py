"""A server whose model gives back what it hears; as a program (`tests/support/serving.py FOLDER
LIMITS-AS-JSON`) a process of its own."""

import asyncio
import json
import logging
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

import torch
from converters import DelayConverter

from rtvc.engine.admission.access import Access
from rtvc.engine.admission.limits import ServerLimits
from rtvc.engine.backends.eager import TorchBackend
from rtvc.engine.server.app import run, serving
from rtvc.engine.server.service import Service
from rtvc.engine.streams.capacity import Capacity
from rtvc.engine.voices.store import VoiceStore
from rtvc.voices.voice import Voice


def gain_voice(gain, name="voice"):
    """A voice that makes `DelayConverter` multiply by `gain`."""
    acoustic = torch.zeros(128)
    acoustic[0] = gain
    return Voice(acoustic, torch.zeros(128), name)


def loudness_voice(samples, rate, name):
    """What stands for a style encoder: the gain is 100 times the rate."""
    return gain_voice(rate / 100_000, name)


def make_service(
    folder,
    *,
    rows=64,
    chunk=600,
    access=None,
    backend=None,
    kind=Service,
    clock=time.perf_counter,
    **limits,
):
    """A service with the voices `one` (gain 1) and `half`."""
    store = VoiceStore(folder, most=limits.get("voices", 1_000))
    for name, gain in {"one": 1.0, "half": 0.5}.items():
        if name not in store.names():
            store.add(name, gain_voice(gain, name))
    backend = backend or TorchBackend(DelayConverter(), chunk)
    capacity = Capacity(chunk / 24_000, {}, rows)
    return kind(
        backend,
        store,
        loudness_voice,
        ServerLimits(**limits),
        access or Access(),
        capacity=capacity,
        name="test",
        clock=clock,
    )


@asynccontextmanager
async def served(folder, **settings):
    """A running server; gives the service and the websocket's address."""
    page, webrtc = settings.pop("page", None), settings.pop("webrtc", False)
    service = make_service(folder, **settings)
    async with serving(service, page=page, webrtc=webrtc) as port:
        yield service, f"ws://127.0.0.1:{port}/v1"


def server(folder, settings):
    """Serves until it is told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    sys.setswitchinterval(0.001)
    service = make_service(Path(folder), **json.loads(settings))
    asyncio.run(run(service, "127.0.0.1", 0, ready=lambda url: print(url, flush=True)))


if __name__ == "__main__":
    server(*sys.argv[1:])
