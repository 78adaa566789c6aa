"""`python -m rtvc.benchmarks.crowd`: hundreds of sessions on one server, the clients in other
processes; every sample must come back.

What is measured is everything but the model, which is a stub that gives back what it hears a little
later: sockets, framing, pacing, batching, back-pressure, and the interpreter that they share. Every
client speaks at a microphone's pace, in frames of 16-bit samples, and compares what comes back with
what it said, sample by sample; the lag is from the capture of a sample to its arrival at the
client. The run lasts `--seconds` of speech and is given up after `--limit`.
"""

import asyncio
import json
import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from rtvc.audio.samples import Samples
from rtvc.benchmarks.serve import RATE, Speaker
from rtvc.engine.protocol.messages import Error
from rtvc.engine.protocol.streams import Audio
from rtvc.percentiles import percentiles

FULL = 32_768
"""Full scale of 16-bit samples."""


class Exact(Speaker):
    """A client that keeps what it hears."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.parts: list[Samples] = []

    def heard(self, audio: Audio) -> None:
        """Counts what came back, see `Speaker.heard`."""
        super().heard(audio)
        self.parts.append(audio.samples)


def speech(seconds: float, seed: int) -> Samples:
    """What one client says: noise (N,) that 16 bits hold exactly, so that no sample can be taken
    for another."""
    noise = np.random.default_rng(seed).integers(-FULL // 4, FULL // 4, int(seconds * RATE))
    return (noise / FULL).astype(np.float32)


def talk(url: str, seeds: range, seconds: float, block: int, pipe: Connection) -> None:
    """What a process of clients does: opens all sessions, says so, and speaks when it is told
    to."""

    async def one(
        seed: int, go: asyncio.Event, there: asyncio.Semaphore
    ) -> tuple[dict[str, Any], list[float]]:
        said = speech(seconds, seed)
        async with Exact(url) as speaker:
            answer = await speaker.start("stub")
            there.release()
            if isinstance(answer, Error):
                return {"refused": answer.code.value}, []
            await go.wait()
            await asyncio.sleep(
                seed % 32 * block / RATE / 32
            )  # people do not begin in the same millisecond
            results = await speaker.speak(said, block)
            exact = np.array_equal(np.concatenate(speaker.parts), said)
            return results | {"exact": exact}, speaker.lags[len(speaker.lags) // 10 :]

    async def main() -> None:
        go, there = asyncio.Event(), asyncio.Semaphore(0)
        tasks = [asyncio.create_task(one(seed, go, there)) for seed in seeds]
        for _ in seeds:
            await there.acquire()
        pipe.send("there")
        await asyncio.to_thread(pipe.recv)
        go.set()
        results = await asyncio.gather(*tasks)
        pipe.send(([result for result, _ in results], [lag for _, own in results for lag in own]))

    asyncio.run(main())


def crowd(
    sessions: int,
    seconds: float,
    *,
    processes: int = 2,
    chunk_ms: float = 50.0,
    block_ms: float = 50.0,
    limit: float = 300.0,
) -> dict[str, Any]:
    """So many clients at once against one server; what came of it.

    Args:
        sessions: clients, and places of the server.
        seconds: of speech of each.
        processes: over which the clients are spread.
        chunk_ms: milliseconds that the server steps at a time.
        block_ms: milliseconds in a frame of the clients.
        limit: seconds after which everything is given up.

    Raises:
        TimeoutError: it was.
    """
    from rtvc.benchmarks.stub import serve  # here, so that the clients' processes need no torch

    context, until = multiprocessing.get_context("spawn"), time.monotonic() + limit
    started: list[Any] = []

    def start(work: Any, *arguments: Any) -> Connection:
        here, there = context.Pipe()
        process = context.Process(target=work, args=(*arguments, there), daemon=True)
        process.start()
        started.append(process)
        return here

    def hear(pipe: Connection) -> Any:
        if not pipe.poll(max(0.0, until - time.monotonic())):
            raise TimeoutError(
                f"{sessions} sessions of {seconds:g} s were not over within {limit:g} s"
            )
        return pipe.recv()

    try:
        server = start(serve, sessions, round(chunk_ms * RATE / 1000))
        url, block = hear(server), round(block_ms * RATE / 1000)
        shares = [range(first, sessions, processes) for first in range(processes)]
        pipes = [start(talk, url, seeds, seconds, block) for seeds in shares]
        for pipe in pipes:
            hear(pipe)
        for pipe in (server, *pipes):
            pipe.send("go")
        began = time.monotonic()
        answers = [hear(pipe) for pipe in pipes]
        lasted = time.monotonic() - began
        server.send("stop")
        totals = hear(server)
        for process in started:
            process.join(10)
    finally:
        for process in started:
            process.terminate()
            process.join()
    results = [result for some, _ in answers for result in some]
    lags = [lag for _, some in answers for lag in some]
    return {
        "sessions": sessions,
        "held": sum(result.get("exact", False) and result["complete"] for result in results),
        "refused": sum("refused" in result for result in results),
        **percentiles(lags, "lag_"),
        "lag_max_ms": round(1000 * max(lags, default=0.0), 1),
        "seconds": seconds,
        "lasted_s": round(lasted, 2),
        "chunk_ms": chunk_ms,
        "block_ms": block_ms,
        "client_processes": processes,
        "server": totals,
    }


def bench(
    sessions: Annotated[int, typer.Option(help="at once", min=1)] = 200,
    seconds: Annotated[float, typer.Option(help="of speech of each", min=0.2)] = 20.0,
    processes: Annotated[int, typer.Option(help="over which the clients are spread", min=1)] = 2,
    chunk: Annotated[
        float, typer.Option(help="milliseconds that the server steps at a time")
    ] = 50.0,
    block: Annotated[float, typer.Option(help="milliseconds in a frame of the clients")] = 50.0,
    limit: Annotated[
        float, typer.Option(help="seconds after which everything is given up")
    ] = 300.0,
    output: Annotated[Path | None, typer.Option("--json", help="write the result here")] = None,
) -> None:
    """Holds a crowd of stub sessions; fails unless every sample of every session comes back."""
    from rtvc.evaluate.provenance import provenance

    load = os.getloadavg()[0]
    result = crowd(
        sessions, seconds, processes=processes, chunk_ms=chunk, block_ms=block, limit=limit
    )
    machine = {
        "cores_used": len(os.sched_getaffinity(0)),
        "load_before": load,
        "load_after": os.getloadavg()[0],
    }
    text = json.dumps(provenance() | machine | result, indent=1)
    typer.echo(text)
    if output:
        output.write_text(text + "\n")
    if result["held"] != sessions:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(bench)
