"""A whole recording through a server, at the pace of speech or as fast as it goes."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtvc.audio.samples import Samples
from rtvc.clients.recording.recorder import Recorder
from rtvc.clients.websocket.client import Client
from rtvc.engine.callback.placing import Stretch
from rtvc.engine.protocol.formats import OPUS_BLOCK_S
from rtvc.errors import OutputError, ServiceError
from rtvc.percentiles import percentiles

PACED_S = 0.020
"""Seconds in a block at the pace of speech."""


@dataclass(frozen=True)
class Outcome:
    """A converted recording.

    Attributes:
        samples: (M,) float32 at the session's output rate, aligned with the input.
        seconds: from the first block sent to the last one that came back.
        lags: milliseconds from when a block's end was spoken to when its conversion was here, for
            each block that came; paced only.
        resumed: how often a lost connection was taken up again.
        dropped: seconds that the server left out; 0 unless it was asked to bound the lag.
    """

    samples: Samples
    seconds: float
    lags: NDArray[np.float64]
    resumed: int
    dropped: float

    def percentiles(self) -> dict[str, float]:
        """p50, p95 and p99 of the lag in milliseconds; nothing unless paced."""
        return percentiles(self.lags / 1000, "lag_") if len(self.lags) else {}


async def paced(wave: Samples, rate: int, began: float) -> AsyncIterator[Samples]:
    """Blocks of wave (N,) when a microphone would have them; `began` is when the speaker opened the
    mouth, by `time.monotonic`."""
    size = round(PACED_S * rate)
    for at in range(0, len(wave), size):
        block = wave[at : at + size]
        await asyncio.sleep(max(0.0, began + (at + len(block)) / rate - time.monotonic()))
        yield block


async def convert_recording(
    client: Client,
    wave: Samples,
    rate: int,
    *,
    fast: bool = False,
    progress: Callable[[float], None] = lambda share: None,
    recorder: Recorder | None = None,
) -> Outcome:
    """Sends a recording through a session that has just been started, and checks that all of it
    came back.

    Args:
        client: with a running session whose input rate is `rate`.
        wave: (N,) float32.
        rate: of `wave`, in Hz.
        fast: do not wait for the pace of speech.
        progress: hears the share that has come back.
        recorder: writes down what comes as it comes.

    Raises:
        ServiceError: the server refused, is gone, or did not send everything back.
    """
    assert client.started is not None
    began, parts, lags, count = time.monotonic(), list[Samples](), list[float](), 0
    rate_out = client.started.output_rate
    expected = -(-len(wave) * rate_out // rate)
    placed = 0  # samples of the source that were written down
    if recorder is not None:
        recorder.start()
    async for samples in client.convert([wave] if fast else paced(wave, rate, began)):
        if recorder is not None:
            until = -(-(count + len(samples)) * rate // rate_out)
            stretch = Stretch(placed, wave[placed:until])
            await asyncio.to_thread(recorder, stretch, [Stretch(count, samples)], wait=True)
            placed = stretch.end
        count += len(samples)
        parts.append(samples)
        if not fast:
            lags.append(1000 * (time.monotonic() - began - count / rate_out))
        progress(count / expected)
    if recorder is not None:
        recorder.stop()
        if recorder.problem:
            raise OutputError(recorder.problem)
    seconds, dropped = (
        time.monotonic() - began,
        (client.totals.dropped_ms / 1000 if client.totals else 0.0),
    )
    padding = (
        2 * OPUS_BLOCK_S * rate_out if client.started.format == "opus" else 0
    )  # its packets are whole, here and there
    if (
        not -1
        <= count + dropped * rate_out - expected
        <= 1 + padding + (0.001 * rate_out if dropped else 0)
    ):
        raise ServiceError(
            f"expected {expected} samples less {dropped:.3f} s dropped, got {count}: the server is"
            " at fault"
        )
    return Outcome(
        np.concatenate([np.zeros(0, np.float32), *parts])[:expected],
        seconds,
        np.array(lags),
        client.link.resumed,
        dropped,
    )
