"""Two peers on this machine, and what they say: tests that need them skip where there are none."""

import asyncio
import time

import numpy as np
import pytest

from rtvc.engine.protocol.formats import opus_library
from rtvc.engine.webrtc.jitter import BLOCK, RATE

pytest.importorskip("aiortc")
if opus_library() is None:
    pytest.skip("opuslib or libopus is not installed", allow_module_level=True)

from aioice.ice import get_host_addresses

if not get_host_addresses(use_ipv4=True, use_ipv6=True):
    pytest.skip("this machine has no address but loopback", allow_module_level=True)


def tone(seconds, hertz=440.0):
    """A tone (N,) at 48 kHz."""
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(
        np.float32
    )


async def say(call, samples):
    """At a microphone's pace."""
    began = time.perf_counter()
    for at in range(0, len(samples), BLOCK):
        await asyncio.sleep(max(0.0, began + at / RATE - time.perf_counter()))
        await call.send(samples[at : at + BLOCK])


async def talk(call, samples):
    """Says it all; what came back (N,), and the totals."""
    parts = []

    async def listen():
        async for block in call:
            parts.append(block)

    listening = asyncio.create_task(listen())
    try:
        await say(call, samples)
        totals = await call.finish()
        async with asyncio.timeout(120):
            await listening
    finally:
        listening.cancel()
    return np.concatenate([np.zeros(0, np.float32), *parts]), totals


def loudness(samples):
    """Of the middle of some samples."""
    middle = samples[len(samples) // 3 : 2 * len(samples) // 3]
    return float(np.sqrt(np.mean(np.square(middle))))
