"""Clients in a process of their own: `python tests/support/calling_process.py URL SECONDS CLIENTS`
speaks at a microphone's pace and prints what came back, a JSON line a client.
"""

import asyncio
import json
import sys
import time

import numpy as np
from calling import Client, Refusal, noise


async def speaker(url, seconds, seed, together, block=600):
    """One client's conversation; returns what it found."""
    lags = []

    class Timed(Client):
        def heard(self, audio):
            lags.append(time.perf_counter() - audio.timestamp / 1e6)

    x = noise(int(24_000 * seconds), seed)
    async with Timed(url) as client:
        try:
            await client.start()
        except Refusal as refusal:
            await together.wait()
            return {"refused": refusal.args[0].code.value, "message": refusal.args[0].message}
        await together.wait()
        await client.speak(
            x, block=block, paced=True, began=time.perf_counter() + 0.1 * (seed % 8) / 8
        )
        stopped = await client.stop()
        p50, p99 = (1000 * np.percentile(lags, [50, 99])).tolist()
        return {
            "exact": bool(np.array_equal(client.samples(), x)),
            "frames": len(client.audio),
            "lag_p50_ms": round(p50, 1),
            "lag_p99_ms": round(p99, 1),
            "server_lag_p99_ms": stopped.lag_p99_ms,
            "dropped_ms": stopped.dropped_ms,
        }


class Together:
    """Lets some tasks go on when all of them are there."""

    def __init__(self, count):
        self.missing, self.event = count, asyncio.Event()

    async def wait(self):
        self.missing -= 1
        if not self.missing:
            print("speaking", flush=True)
            self.event.set()
        await self.event.wait()


async def speakers(url, seconds, clients):
    """Several clients, who begin to speak when all of them have a session."""
    together = Together(clients)
    for found in await asyncio.gather(
        *[speaker(url, seconds, seed, together) for seed in range(clients)]
    ):
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    asyncio.run(speakers(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))
