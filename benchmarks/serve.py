"""`python -m rtvc.benchmarks.serve`: a served model under as many clients as the machine holds, and
one more.

The server is `rtvc serve` in a process of its own, the clients another: websockets, framing, pacing
and the operating system are all in the numbers. Every client speaks at a microphone's pace and must
get every sample back, in order; the lag is from the capture of a sample to its arrival at the
client.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import typer

from rtvc.engine.protocol.client_side import ClientSide
from rtvc.engine.protocol.messages import Error, Start, Started, Stopped, VoiceReady, Welcome
from rtvc.engine.protocol.refusals import Violation
from rtvc.engine.protocol.streams import Audio
from rtvc.files import write
from rtvc.percentiles import percentiles

RATE: Literal[24_000] = 24_000
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@contextmanager
def server(
    options: list[str], root: Path | None = None, **environment: str
) -> Iterator[tuple[str, int]]:
    """`rtvc serve` with some options, in a folder and with variables of its own; gives its address
    and its process."""
    own = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"} | environment
    command = [sys.executable, "-m", "rtvc", "serve", "--port", "0", *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=root, env=os.environ | own
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"the server did not start (exit code {process.wait()})")
        yield line.split()[-1], process.pid
    finally:
        process.terminate()
        process.wait()


class Speaker:
    """One client."""

    def __init__(self, url: str) -> None:
        self.url, self.side = url, ClientSide("rtvc-bench")
        self.lags: list[float] = []
        self.samples, self.frames = 0, 0

    async def __aenter__(self) -> Self:
        from websockets.asyncio.client import connect

        origin: Any = self.url.replace("ws", "http", 1).rpartition("/")[0]
        self.socket = await connect(self.url, origin=origin, compression=None, ping_interval=None)
        await self.socket.send(self.side.hello())
        await self.hear(Welcome)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.socket.close()

    async def hear(self, kind: type) -> Any:
        """Reads until a message of a kind, or an error, comes; audio on the way is counted."""
        while True:
            event = self.side.receive(await self.socket.recv())
            if isinstance(event, Audio):
                self.heard(event)
            elif isinstance(event, Violation):
                raise SystemExit(event.error.message)  # a gap in the sequence, for one
            elif isinstance(event, kind | Error):
                return event

    def heard(self, audio: Audio) -> None:
        """Counts what came, and how late."""
        self.frames += 1
        self.samples += len(audio.samples)
        if len(audio.samples):
            self.lags.append(time.perf_counter() - audio.timestamp / 1e6)

    async def start(self, voice: str) -> Started | Error:
        """Opens a session."""
        await self.socket.send(self.side.start(Start(sample_rate=RATE, format="s16", voice=voice)))
        answer: Started | Error = await self.hear(Started)
        return answer

    async def speak(
        self, speech: "np.ndarray[Any, np.dtype[np.float32]]", block: int
    ) -> dict[str, Any]:
        """Says it all at a microphone's pace; returns what came of it."""

        async def say() -> None:
            began = time.perf_counter()
            for at in range(0, len(speech), block):
                await asyncio.sleep(max(0.0, began + (at + block) / RATE - time.perf_counter()))
                await self.socket.send(
                    self.side.audio(speech[at : at + block], round(1e6 * (began + at / RATE)))
                )
            await self.socket.send(self.side.stop())

        saying = asyncio.create_task(say())
        stopped: Stopped | Error = await self.hear(Stopped)
        await saying
        if isinstance(stopped, Error):
            raise SystemExit(stopped.message)
        complete = self.samples == len(speech) and stopped.dropped_ms == 0
        return {"complete": complete, "xruns": stopped.xruns, "server_p99_ms": stopped.lag_p99_ms}


async def round_of(
    url: str, voice: str, streams: int, seconds: float, block: int
) -> dict[str, Any]:
    """So many clients at once."""
    import soundfile

    from rtvc.audio.resample import resample

    speech, rate = soundfile.read(EXAMPLES / "source.flac", dtype="float32")
    speech = np.resize(resample(speech, rate, RATE), int(seconds * RATE)).astype(np.float32)

    async def one(index: int) -> tuple[dict[str, Any], list[float]]:
        async with Speaker(url) as speaker:
            answer = await speaker.start(voice)
            if isinstance(answer, Error):
                return {"refused": answer.code.value}, []
            await asyncio.sleep(index % 16 * block / RATE / 16)
            return await speaker.speak(np.roll(speech, index * RATE // 3), block), speaker.lags

    results = await asyncio.gather(*[one(index) for index in range(streams)])
    lags = [lag for result, own in results for lag in own[len(own) // 10 :]]
    spoke = [result for result, _ in results if "refused" not in result]
    return {
        "streams": len(spoke),
        "refused": [result["refused"] for result, _ in results if "refused" in result],
        "every_sample": all(result["complete"] for result in spoke),
        **percentiles(lags, "lag_"),
        "xruns": sum(result["xruns"] for result in spoke),
    }


def bench(
    backend: Annotated[str, typer.Option(help="auto, torch-eager, onnx, …")] = "auto",
    chunk: Annotated[float, typer.Option(help="milliseconds a step")] = 25.0,
    seconds: Annotated[float, typer.Option(help="of speech, for every number of clients")] = 10.0,
    block: Annotated[float, typer.Option(help="milliseconds a frame of the clients")] = 20.0,
    most: Annotated[int, typer.Option(help="clients at most")] = 64,
    output: Annotated[Path | None, typer.Option("--json", help="write the result here")] = None,
) -> None:
    """Serves the shipped model to more and more clients, up to the capacity that the server
    measured, and one more."""
    import urllib.request

    from rtvc.evaluate.provenance import provenance

    rows, load = [], os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as voices:
        options = [
            "--voices",
            voices,
            "--backend",
            backend,
            "--chunk",
            str(chunk),
            "--max-sessions",
            str(most),
        ]
        with server(options) as (url, _):
            web = url.replace("ws", "http", 1).rpartition("/")[0]
            limit = json.load(urllib.request.urlopen(f"{web}/readyz"))["limit"]
            asyncio.run(upload(url))
            for streams in [*[n for n in (1, 2, 4, 8, 16, 32) if n < limit], limit, limit + 1]:
                rows.append(
                    asyncio.run(
                        round_of(url, "reference", streams, seconds, round(block * RATE / 1000))
                    )
                )
                typer.echo(json.dumps(rows[-1]))
    machine = {
        "cores_used": len(os.sched_getaffinity(0)),
        "load_before": load,
        "load_after": os.getloadavg()[0],
    }
    result = {
        **provenance(),
        **machine,
        "backend": backend,
        "chunk_ms": chunk,
        "block_ms": block,
        "seconds": seconds,
        "capacity": limit,
        "rows": rows,
    }
    if output:
        write(output, json.dumps(result, indent=1) + "\n")


async def upload(url: str) -> None:
    """Makes the voice that all clients take."""
    async with Speaker(url) as speaker:
        for frame in speaker.side.upload("reference", (EXAMPLES / "reference.flac").read_bytes()):
            await speaker.socket.send(frame)
        answer = await speaker.hear(VoiceReady)
        if isinstance(answer, Error):
            raise SystemExit(answer.message)


if __name__ == "__main__":
    typer.run(bench)
