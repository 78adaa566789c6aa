"""A server whose model gives back what it hears, in a process of its own: what a server costs
beside the model."""

import asyncio
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from rtvc.engine.admission.limits import ServerLimits
from rtvc.engine.backends.eager import TorchBackend
from rtvc.engine.server.app import serving
from rtvc.engine.server.service import Service
from rtvc.engine.streams.capacity import Capacity
from rtvc.engine.voices.store import VoiceStore
from rtvc.voices.voice import Voice

VOICE = "stub"
RATE = 24_000
COUNTS = ("rtvc_xruns_total", "rtvc_internal_errors_total", "rtvc_dropped_seconds_total")


class Delay(torch.nn.Module):
    """Gives back its input 900 samples later: every sample can be accounted for."""

    sample_rate, hop, latency = RATE, 300, 900

    def initial(self, batch: int) -> torch.Tensor:
        """The last samples that were heard, (B, 1, 900)."""
        return torch.zeros(batch, 1, self.latency)

    def condition(
        self,
        acoustic: torch.Tensor,
        prosodic: torch.Tensor,
        *,
        pitch: float = 0.0,
        prosody: float = 1.0,
    ) -> torch.Tensor:
        """Nothing of a voice matters: (B, 1)."""
        return acoustic[:, :1]

    def forward(
        self, x: torch.Tensor, voice: torch.Tensor, state: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """x (B, 1, N) -> what came 900 samples before, (B, 1, N), and the next state."""
        delayed = torch.cat([state, x], -1)
        return delayed[..., : -self.latency], delayed[..., -self.latency :]


def serve(sessions: int, chunk: int, pipe: Connection) -> None:
    """What the server's process does: tells its address, counts from the first word on, and serves
    until the second one.

    Args:
        sessions: that it takes.
        chunk: samples at 24 kHz a step.
        pipe: to whoever started it.
    """
    torch.set_num_threads(1)
    sys.setswitchinterval(0.001)
    voice = Voice(torch.zeros(128), torch.zeros(128), VOICE)
    room = sessions + 8
    limits = ServerLimits(
        sessions=sessions, connections=room, connections_per_address=room, handshakes=room
    )

    async def main(folder: Path) -> None:
        store = VoiceStore(folder)
        store.add(VOICE, voice)
        capacity = Capacity(chunk / RATE, {}, sessions)
        service = Service(
            TorchBackend(Delay(), chunk), store, lambda *_: voice, limits, capacity=capacity
        )
        async with serving(service) as port:
            pipe.send(f"ws://127.0.0.1:{port}/v1")
            await asyncio.to_thread(pipe.recv)
            began = time.process_time()
            await asyncio.to_thread(pipe.recv)
            spent = time.process_time() - began
            value = service.metrics.registry.get_sample_value
            pipe.send({name: value(name) for name in COUNTS} | {"cpu_s": round(spent, 2)})

    with tempfile.TemporaryDirectory(prefix="rtvc-crowd-") as folder:
        asyncio.run(main(Path(folder)))
