"""`python -m rtvc.benchmarks.one_engine --against ../before`: what another stream costs in memory,
and a 25 ms block in time, here and in another checkout in turn."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rtvc.benchmarks import report

ROOT = Path(__file__).resolve().parents[1]
CHILD = """
import gc, json, sys, time
import numpy as np, psutil, rtvc
backend, streams = sys.argv[1], int(sys.argv[2])
vc = rtvc.load()
voice = vc.voice("examples/reference.flac")
block = np.random.default_rng(0).normal(0, 0.1, 600).astype(np.float32)
held, process = [], psutil.Process()
for index in range(2 + streams):
    if index == 2:
        gc.collect()
        before = process.memory_info().rss
    held.append(vc.stream(voice, chunk=300, backend=backend))
    held[-1].push(block)
each = (process.memory_info().rss - before) / streams
times = []
for _ in range(60):
    began = time.process_time()
    held[0].push(block)
    times.append(time.process_time() - began)
print(json.dumps({"megabytes": each / 1e6, "block_ms": 1000 * float(np.median(times[10:]))}))
"""
"""A user's program: streams of 12.5 ms steps that are given blocks of 25 ms."""


def measure(root: Path, backend: str, streams: int) -> dict[str, float]:
    """Megabytes of each further stream, and processor milliseconds of a block, of one checkout."""
    figures: dict[str, float] = printed(root, CHILD, backend, str(streams))
    return figures


def printed(root: Path, program: str, *arguments: str, **environment: str) -> Any:
    """What a program that runs on the code of a checkout printed last, as JSON."""
    own = {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"} | environment
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=root,
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def compare(
    backends: Sequence[str], streams: int, rounds: int, against: Path | None
) -> list[dict[str, Any]]:
    """One row a backend: the medians of both figures, and `before` of the other checkout."""
    rows = []
    for backend in backends:
        taken: dict[Path, list[dict[str, float]]] = {ROOT: []}
        if against is not None:
            taken[against] = []
        for _ in range(rounds):
            for root, runs in taken.items():
                runs.append(measure(root, backend, streams))
        now, *others = (
            {name: round(float(np.median([each[name] for each in runs])), 2) for name in runs[0]}
            for runs in taken.values()
        )
        rows.append({"backend": backend, **now} | ({"before": others[0]} if others else {}))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="What a stream costs in memory and time.")
    parser.add_argument("--backend", action="append", help="several; default: torch-eager")
    parser.add_argument("--streams", type=int, default=8, help="beyond the first two")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each")
    parser.add_argument("--against", type=Path, help="folder of another checkout")
    parser.add_argument("--json", type=Path, help="results file; default: the machine's")
    given = parser.parse_args(arguments)
    report.check(given.json)
    backends = given.backend or ["torch-eager"]
    against = given.against and given.against.resolve()
    rows = compare(backends, given.streams, given.rounds, against)
    for row in rows:
        sys.stdout.write(json.dumps(row) + "\n")
    report.save(rows, given.json, kind="one_engine")


if __name__ == "__main__":
    main()
