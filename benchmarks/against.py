"""`python -m rtvc.benchmarks.against ../before`: a step, a stream and a server here and in another
checkout, in turn, in processor time: a ratio above 1 says that this one needs more.

Processor time, because the time by the clock of two runs differs by what else the machine did.
"""

import argparse
import asyncio
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rtvc.benchmarks import report
from rtvc.benchmarks.one_engine import printed
from rtvc.benchmarks.serve import round_of, upload
from rtvc.benchmarks.serve import server as served
from rtvc.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
STREAM = """
import json, sys, time
import numpy as np, rtvc
backend, chunk = sys.argv[1], int(sys.argv[2])
vc = rtvc.load()
stream = vc.stream(vc.voice("examples/reference.flac"), chunk=chunk, backend=backend)
block = np.random.default_rng(0).normal(0, 0.1, 600).astype(np.float32)
times = []
for _ in range(120):
    began = time.process_time()
    stream.push(block)
    times.append(time.process_time() - began)
print(json.dumps(1000 * float(np.median(times[20:]))))
"""
"""A user's program: processor milliseconds of a block of 25 ms at 24 kHz."""
SESSIONS, SECONDS = 3, 8.0
"""Of a measurement of the server."""
BLOCK = 480
"""Samples a frame, 20 ms."""


def cache_of(root: Path) -> str:
    """A cache folder of a checkout's own: engines of different code must not meet."""
    return str(Path(tempfile.gettempdir()) / f"rtvc-against-{abs(hash(root))}")


def stream(root: Path, backend: str, chunk: int) -> float:
    """Processor milliseconds of a block of 25 ms that a stream converts in steps of `chunk`
    samples."""
    return float(printed(root, STREAM, backend, str(chunk), XDG_CACHE_HOME=cache_of(root)))


def server(root: Path, backend: str) -> float:
    """Processor milliseconds that `rtvc serve` takes for a second of one session."""
    options = ["--backend", backend, "--chunk", "25", "--no-measure"]
    own = {"PYTHONPATH": str(root), "XDG_CACHE_HOME": cache_of(root)}
    with served(options, root, **own) as (url, pid):
        return asyncio.run(spoken_to(url, pid))


async def spoken_to(url: str, pid: int) -> float:
    """Speaks to a server; processor milliseconds a second and session."""
    await upload(url)
    began = spent(pid)
    await round_of(url, "reference", SESSIONS, SECONDS, BLOCK)
    return 1000 * (spent(pid) - began) / SECONDS / SESSIONS


def spent(pid: int) -> float:
    """Seconds of a processor that a process took so far, as Linux counts them (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def compare(
    before: Path, backends: Sequence[str], rounds: int, tell: Callable[[str], object] = print
) -> list[dict[str, Any]]:
    """One row a figure and backend: medians over rounds in which both checkouts take turns."""
    figures: dict[str, Callable[[Path, str], float]] = {
        "a step of 25 ms": lambda root, backend: stream(root, backend, 600),
        "a block of 25 ms in steps of 12.5": lambda root, backend: stream(root, backend, 300),
        "a second of a session of the server": server,
    }
    rows = []
    for backend in backends:
        for name, measure in figures.items():
            taken = np.array(
                [[measure(root, backend) for root in (before, ROOT)] for _ in range(rounds)]
            )
            was, now = np.median(taken, 0)
            row = {"backend": backend, "what": name, "before_ms": round(was, 2)}
            rows.append(row | {"now_ms": round(now, 2), "ratio": round(now / was, 3)})
            tell(json.dumps(rows[-1]))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="This checkout against another.")
    parser.add_argument("before", type=Path, help="folder of the other checkout")
    parser.add_argument("--backend", action="append", help="several; default: torch-eager")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each")
    parser.add_argument("--json", type=Path, help="results file; default: the machine's")
    given = parser.parse_args(arguments)
    before = given.before.resolve()
    if not (before / "rtvc" / "cli").is_dir():
        raise ConfigError(f"{given.before} is no checkout of rtvc: name its folder")
    report.check(given.json)
    rows = compare(before, given.backend or ["torch-eager"], given.rounds)
    report.save(rows, given.json, kind="against")


if __name__ == "__main__":
    main()
