"""`python -m rtvc.benchmarks.network.run`: the websocket and a call over the same bad line, side by
side.

Server and client are processes in two network namespaces with a line between them that loses and
delays packets (`link.py`). The model is a stub that gives back what it hears; both ways speak Opus
at 48 kHz in packets of 20 ms. The lag of the websocket is from the capture of a sample to its
arrival, that of a call until it leaves the jitter buffer to be played: the websocket's player would
have to wait besides.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from rtvc.benchmarks.network.link import ADDRESSES, Line, bad_line
from rtvc.files import write
from rtvc.percentiles import percentiles

WAYS = ("websocket", "webrtc")
PEERS = "rtvc.benchmarks.network.peers"
BUSY_MS = 25.0
"""A round in which one in a hundred blocks was said later than that by the client's own clock tells
about the machine, not about the line: it is left out, and counted."""
TRIES = 4
"""Rounds that are begun for each that is wanted."""
PATIENCE_S = 120.0
"""Seconds beyond the speech after which a client is given up."""


def compare(line: Line, seconds: float, kind: str = "auto", seed: int = 0) -> dict[str, Any]:
    """Both ways over one bad line, one after the other.

    Args:
        line: what it does to packets.
        seconds: of speech.
        kind: what the line is made of: `netem`, `tun` or `auto`.
        seed: of the fate of packets, where it is ours.

    Raises:
        DependencyError: no such line can be had here.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    with bad_line(line, kind, seed) as (names, made_of):

        def inside(end: int, *arguments: str) -> list[str]:
            return ["ip", "netns", "exec", names[end], sys.executable, "-m", PEERS, *arguments]

        server = subprocess.Popen(
            inside(0, "server", ADDRESSES[0]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            results = {}
            for way in WAYS:
                done = subprocess.run(
                    inside(1, way, url, str(seconds)),
                    capture_output=True,
                    text=True,
                    env=environment,
                    timeout=seconds + PATIENCE_S,
                )
                if done.returncode:
                    raise RuntimeError(f"the client over {way} failed: {done.stderr[-2_000:]}")
                results[way] = json.loads(done.stdout)
            up = json.loads(server.communicate("", timeout=30)[0])
        finally:
            server.kill()
            server.wait()
    return {"line": made_of, **figures(results["websocket"], results["webrtc"], up)}


def figures(
    websocket: dict[str, Any], call: dict[str, Any], up: dict[str, float]
) -> dict[str, Any]:
    """What is told of both."""

    def lags(one: dict[str, Any]) -> dict[str, float]:
        return {
            **percentiles(one["lags"], "lag_"),
            "lag_max_ms": round(1000 * max(one["lags"]), 1),
            "machine_ms": round(1000 * float(np.percentile(one["late"], 99)), 1),
        }

    in_time = np.percentile(call["lags"], 99)
    down = call["down"]
    packets = call["said"] / 960
    return {
        "websocket": lags(websocket)
        | {
            "missing_ms": round(1000 * (websocket["said"] - websocket["samples"]) / 48_000, 1),
            "later_than_a_call": round(float(np.mean(np.array(websocket["lags"]) > in_time)), 4),
        },
        "webrtc": lags(call)
        | {
            "missing_ms": round(1000 * (call["said"] - call["samples"]) / 48_000, 1),
            "lost_up": round((up["recovered"] + up["concealed"]) / packets, 4),
            "lost_down": round(down["lost"] / packets, 4),
            "copied": round((up["recovered"] + down["recovered"]) / packets, 4),
            "guessed": round((up["concealed"] + down["concealed"]) / packets, 4),
        },
    }


def median(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each figure over some rounds: one in which the machine was busy tells nothing."""
    return {
        way: {
            name: round(float(np.median([one[way][name] for one in rounds])), 4)
            for name in rounds[0][way]
        }
        for way in WAYS
    }


def bench(
    loss: Annotated[float, typer.Option(help="per cent of packets that are lost")] = 2.0,
    delay: Annotated[float, typer.Option(help="milliseconds a packet takes, each way")] = 40.0,
    jitter: Annotated[float, typer.Option(help="milliseconds more or less")] = 30.0,
    seconds: Annotated[float, typer.Option(help="of speech, each way of speaking")] = 12.0,
    rounds: Annotated[int, typer.Option(help="whose medians are told", min=1)] = 5,
    kind: Annotated[str, typer.Option(help="netem, tun, or auto")] = "auto",
    output: Annotated[Path | None, typer.Option("--json", help="write the result here")] = None,
) -> None:
    """Speaks over the websocket and in a call, over a line as it is and over the bad one."""
    from rtvc.evaluate.provenance import provenance

    rows, load = list[dict[str, Any]](), os.getloadavg()[0]
    for line in (Line(0, 0, 0), Line(loss / 100, delay, jitter)):
        rows.append({"loss": line.loss, "delay_ms": line.delay_ms, "jitter_ms": line.jitter_ms})
        each, busy = list[dict[str, Any]](), 0
        for seed in range(TRIES * rounds):
            try:
                one = compare(line, seconds, kind, seed)
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                one = {"broken": str(error)[-200:]}  # a call ends when nobody answers for 30 s
            quiet = all(one.get(way, {"machine_ms": 1e9})["machine_ms"] < BUSY_MS for way in WAYS)
            each += [one] if quiet else []
            busy += not quiet
            if len(each) == rounds:
                break
        if not each:
            raise SystemExit(f"the machine was busy in all of {busy} rounds: try again later")
        rows[-1] |= {"line": each[0]["line"], **median(each), "rounds": each, "busy_rounds": busy}
        typer.echo(json.dumps({k: v for k, v in rows[-1].items() if k != "rounds"}, indent=1))
    machine = {"cores_used": len(os.sched_getaffinity(0)), "load_before": load}
    result = {**provenance(), **machine, "load_after": os.getloadavg()[0], "seconds": seconds}
    if output:
        write(output, json.dumps(result | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(bench)
