"""Everything that is to be known of this code on a GPU, in eight minutes, most important first.

`python -m rtvc.benchmarks.gpu_suite`, or `python benchmarks/gpu_suite.py` in a bare tree with
torch, triton and numpy. Results go to `benchmarks/results/<gpu>.json` after every part. Killed or
out of time, it goes on where it was when it is run again; a part that fails, hangs or takes its
process down is recorded with its error, and the others run. `--dry-run` runs every part on the CPU
at tiny sizes, with Triton's interpreter; what it writes is marked and holds no GPU's numbers.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__" and not __package__:
    sys.path[0] = str(ROOT)  # the tree, not this folder

from rtvc.benchmarks.gpu.record import Record, source  # noqa: E402

LONGEST = 150.0
"""Seconds after which a part is given up."""
GRACE = 30.0
"""Seconds over the budget that a part which was begun in time may take."""


def gpu_name() -> str | None:
    """The GPU, asked in a process of its own so that this one never holds it."""
    ask = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True)
    return done.stdout.strip() or None


def versions() -> dict[str, str]:
    """Of what results depend on."""
    from importlib.metadata import PackageNotFoundError, version

    installed = {}
    for package in ("torch", "triton"):
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            installed[package] = "absent"
    return installed


def watch(
    command: Sequence[str],
    record: Record,
    deadline: float,
    environment: dict[str, str],
    longest: float = LONGEST,
) -> int:
    """Runs the working process to its end, or ends it when a part takes too long; returns its exit
    status.

    Whatever part was running when the process ended is recorded as failed.
    """
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    late = ""
    try:
        while process.poll() is None:
            time.sleep(0.1)
            now, seen = time.time(), Record(record.path, record.identity)
            name = seen.running()
            began = seen.parts[name]["began"] if name else now
            if now - began > longest or now > deadline + GRACE:
                late = f"ended after {now - began:.0f} s: it took too long"
                process.kill()
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
    record.whole = Record(record.path, record.identity).whole
    name = record.running()
    if name:
        record.end(
            name,
            "failed",
            error=late or f"the process ended with status {process.returncode} in it",
        )
    return process.returncode


def die_with_parent() -> None:
    """On Linux: when the watching process is killed, so is this one, and no two write one file."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def run(options: argparse.Namespace, path: Path, identity: dict[str, object]) -> int:
    """Working processes, one after another, until nothing is left to do or the time is up."""
    record, deadline = Record(path, identity, options.keep), time.time() + 60 * options.minutes
    record.save()
    environment = os.environ | {
        "OMP_WAIT_POLICY": "passive",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    if options.dry_run:
        environment |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [
        sys.executable,
        "-m",
        "rtvc.benchmarks.gpu_suite",
        "--worker",
        str(deadline),
        "-o",
        str(path),
    ]
    command += ["--dry-run"] if options.dry_run else ["--gpu", str(identity["gpu"])]
    command += ["--only", *options.only] if options.only else []
    while True:
        before = {name: part["status"] for name, part in record.parts.items()}
        status = watch(command, record, deadline, environment)
        after = {name: part["status"] for name, part in record.parts.items()}
        if status == 0 or time.time() > deadline:
            break
        if before == after:  # it did not get as far as a part
            print(
                f"the working process ended with status {status} before it began a part: see above",
                file=sys.stderr,
            )
            return 1
    counts = {
        state: list(after.values()).count(state)
        for state in ("done", "unavailable", "failed", "skipped")
    }
    wrong = [
        name
        for name, part in record.parts.items()
        if isinstance(part.get("result"), dict) and part["result"].get("right") is False
    ]
    print(f"{path}: " + ", ".join(f"{count} {state}" for state, count in counts.items() if count))
    print("".join(f"WRONG: {name}\n" for name in wrong), end="")
    return 1 if counts["failed"] or wrong else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """0: all that ran is done; 1: something failed; 2: there is nothing to measure here."""
    parser = argparse.ArgumentParser(
        prog="python -m rtvc.benchmarks.gpu_suite", description=__doc__
    )
    parser.add_argument("--dry-run", action="store_true", help="every part on the CPU, tiny")
    parser.add_argument("--minutes", type=float, default=8.0, help="time for this run (8)")
    parser.add_argument(
        "-o", "--output", type=Path, help="results file; by default benchmarks/results/<gpu>.json"
    )
    parser.add_argument("--only", nargs="+", default=[], help="parts whose names begin so")
    parser.add_argument(
        "--keep",
        action="store_true",
        help="keep finished parts although code or versions have changed since",
    )
    parser.add_argument("--worker", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--gpu", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    gpu = None if options.dry_run else options.gpu or gpu_name()
    if gpu is None and not options.dry_run:
        print(
            "torch sees no GPU here, and numbers of a CPU are none of a GPU: use --dry-run to try"
            " the suite out",
            file=sys.stderr,
        )
        return 2
    slug = re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-") if gpu else ""
    default = (
        ROOT / "benchmarks" / "results" / f"{slug}.json"
        if gpu
        else Path(tempfile.gettempdir()) / "rtvc-gpu-suite-dry-run.json"
    )
    path = (options.output or default).resolve()
    identity = {
        "dry_run": options.dry_run,
        "gpu": gpu,
        "source": source(ROOT),
        "versions": versions(),
    }
    if options.worker is not None:
        die_with_parent()
        from rtvc.benchmarks.gpu.stubs import furnish

        record = Record(path, identity, keep=True)
        record.note(stand_ins=furnish())
        from rtvc.benchmarks.gpu.parts import work

        return work(record, options.worker, options.dry_run, tuple(options.only))
    if options.dry_run and path.is_file() and '"dry_run": false' in path.read_text():
        print(
            f"{path} holds measurements of a GPU, and a dry run does not replace them: name another"
            " file by -o",
            file=sys.stderr,
        )
        return 2
    return run(options, path, identity)


if __name__ == "__main__":
    sys.exit(main())
