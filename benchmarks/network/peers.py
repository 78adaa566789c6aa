"""The two ends of a bad line: a server whose model gives back what it hears, and a client that
speaks over the websocket or in a call. Each is a process in a namespace of its own.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from rtvc.audio.samples import Samples

RATE = 48_000
BLOCK = 960


def speech(seconds: float) -> Samples:
    """What the client says, (N,): a voice in pitch and loudness, no stretch of it like another."""
    count = round(seconds * RATE)
    rng = np.random.default_rng(0)
    pitch = 140 + 40 * np.sin(2 * np.pi * np.arange(count) / RATE / 1.7)
    loudness = 0.6 + 0.4 * np.sin(2 * np.pi * np.arange(count) / RATE * 3.1)
    hum = np.sin(2 * np.pi * np.cumsum(pitch) / RATE)
    return (0.2 * loudness * (hum + 0.3 * rng.standard_normal(count))).astype(np.float32)


async def _paced(
    samples: Samples, began: float, late: list[float]
) -> AsyncIterator[tuple[int, Samples]]:
    """Blocks as a microphone gives them: each when its last sample was captured. `late` hears by
    how many seconds the machine missed that."""
    for at in range(0, len(samples), BLOCK):
        due = began + (at + BLOCK) / RATE
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        late.append(time.perf_counter() - due)
        yield at, samples[at : at + BLOCK]


async def over_websocket(url: str, seconds: float) -> dict[str, Any]:
    """The lag of every frame that comes back, from the capture of its first sample to its
    arrival."""
    from rtvc.clients.websocket.client import connect

    said, lags, late, samples = speech(seconds), list[float](), list[float](), 0
    settings: dict[str, Any] = {"sample_rate": RATE, "format": "opus"}
    async with connect(url, "stub", window=60.0, **settings) as client:
        began = time.perf_counter()

        async def say() -> None:
            async for at, block in _paced(said, began, late):
                await client.send(block, began + at / RATE)
            await client.finish()

        saying = asyncio.create_task(say())
        async for audio in client.audio():
            if len(audio.samples):
                samples += len(audio.samples)
                lags.append(time.perf_counter() - audio.timestamp / 1e6)
        await saying
    return {"lags": lags, "samples": samples, "said": len(said), "late": late}


async def in_call(url: str, seconds: float) -> dict[str, Any]:
    """The lag of every packet that comes back, from the capture of its first sample until it leaves
    the jitter buffer to be played."""
    from rtvc.clients.webrtc.call import call

    said, played, parts = speech(seconds), list[tuple[float, int]](), list[Samples]()
    late = list[float]()
    async with call(url, "stub") as client:
        began = time.perf_counter()

        async def say() -> None:
            async for _, block in _paced(said, began, late):
                await client.send(block)
            await client.finish()

        saying = asyncio.create_task(say())
        async for piece in client.pieces():
            played.append((time.perf_counter(), piece.timestamp))
            parts.append(piece.samples)
        await saying
        packets = client.heard
    back = np.concatenate(parts)
    ahead = shift(said, back)
    first = played[0][1]
    lags = [when - began - (ticks - first + ahead) / RATE for when, ticks in played]
    told = {"lags": lags, "samples": len(back), "said": len(said), "late": late}
    return told | {"down": asdict(packets)}


def shift(said: Samples, back: Samples) -> int:
    """By how many samples what came back begins later in what was said: 0, or some packets that
    were lost before any had come."""
    size = min(len(said), len(back), 4 * RATE)
    spectrum = np.fft.rfft(said[:size], 2 * size) * np.conj(np.fft.rfft(back[:size], 2 * size))
    alike = np.fft.irfft(spectrum)
    best = int(np.argmax(alike))
    return best if best < size else best - 2 * size


def serve(host: str) -> None:
    """Serves until its input ends, and then tells what became of the packets of calls."""
    import torch

    from rtvc.benchmarks.stub import VOICE, Delay
    from rtvc.engine.admission.access import Access
    from rtvc.engine.backends.eager import TorchBackend
    from rtvc.engine.server.app import serving
    from rtvc.engine.server.service import Service
    from rtvc.engine.streams.capacity import Capacity
    from rtvc.engine.voices.store import VoiceStore
    from rtvc.voices.voice import Voice

    torch.set_num_threads(1)
    sys.setswitchinterval(0.001)
    voice, chunk = Voice(torch.zeros(128), torch.zeros(128), VOICE), 600

    async def main(folder: Path) -> None:
        store = VoiceStore(folder)
        store.add(VOICE, voice)
        backend = TorchBackend(Delay(), chunk)
        capacity = Capacity(chunk / backend.sample_rate, {}, 4)
        service = Service(
            backend, store, lambda *_: voice, access=Access(host=host), capacity=capacity
        )
        async with serving(service, host, webrtc=True) as port:
            print(f"ws://{host}:{port}", flush=True)
            await asyncio.to_thread(sys.stdin.read)
        value = service.metrics.registry.get_sample_value
        fates = ("received", "recovered", "concealed")
        up = {f: value("rtvc_call_packets_total", {"fate": f}) or 0.0 for f in fates}
        print(json.dumps(up), flush=True)

    with tempfile.TemporaryDirectory(prefix="rtvc-network-") as folder:
        asyncio.run(main(Path(folder)))


if __name__ == "__main__":
    if sys.argv[1] == "server":
        serve(sys.argv[2])
    else:
        talk = {"websocket": over_websocket, "webrtc": in_call}[sys.argv[1]]
        print(json.dumps(asyncio.run(talk(sys.argv[2], float(sys.argv[3])))))
