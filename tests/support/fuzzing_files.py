"""Hostile files in numbers, each with 10 s and little memory: `python
tests/support/fuzzing_files.py [CASES] [SECONDS OF ATHERIS]`.

Cases run in a process of their own, whose address space is limited and which is killed when a case
takes over 10 s of the processor; it is started anew behind the case that killed it. Then atheris
looks for more, guided by what the loaders do.
"""

import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import types
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from fuzzing import Bytes
from hostile_loading import KINDS, attempt

SECONDS = 10
"""Of the processor that a case may take, so that a busy machine fails nothing."""
ROOM = 2 << 30
"""Bytes of address space beyond what the process has when it starts."""
GROWTH = 256 << 20
"""Bytes by which a case may raise what the process held at most: every file here is small."""


def main(cases: int = 20_000, seconds: int = 60) -> int:
    """Numbered cases, then guided ones; returns the faults."""
    began = time.perf_counter()
    counts, faults = numbered(cases)
    for fault in faults:
        print(f"FAULT in case {fault}")
    print(
        f"files: {cases} cases, faults {len(faults)}, {dict(sorted(counts.items()))},"
        f" {time.perf_counter() - began:.1f} s"
    )
    try:
        import atheris  # noqa: F401
    except ImportError:
        print("atheris is not installed (pip install 'rtvc-engine[fuzz]'): no guided run")
        return len(faults)
    command = [sys.executable, __file__, "--guided", str(seconds)]
    code = subprocess.run(command, check=False).returncode
    print(f"files, guided: faults {int(code != 0)}")
    return len(faults) + int(code != 0)


def numbered(cases: int, first: int = 0) -> tuple[Counter[str], list[str]]:
    """Runs cases by number in processes that may die; returns what loaded and what was refused, and
    every fault."""
    counts, faults, at, last = Counter[str](), list[str](), first, first + cases
    while at < last:
        command = [sys.executable, __file__, "--worker", str(at), str(last)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            started = False
            for line in process.stdout:
                told = json.loads(line)
                started, at = True, told["case"] + 1
                if told.get("fault"):
                    faults.append(f"{told['case']}: {told['fault']}")
                elif "what" in told:
                    counts[told["what"]] += 1
        if process.returncode:
            name = (
                signal.Signals(-process.returncode).name
                if process.returncode < 0
                else f"exit code {process.returncode}"
            )
            faults.append(f"{at - 1}: the process ended ({name})")
            if not started:
                break
    return counts, faults


def worker(first: int, last: int) -> None:
    """Runs cases, a line before each and one behind it."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:  # what is imported, or made once, is no case's
            attempt(random.Random(0), fresh(Path(folder), kind), kind)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, size + ROOM))
    for case in range(first, last):
        tell({"case": case})
        tell({"case": case} | one(random.Random(case)))


def one(chance: Any) -> dict[str, str]:
    """What came of one case."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # nothing catches the signal: it ends the process
    try:
        with tempfile.TemporaryDirectory() as folder:
            kind, loaded = attempt(chance, Path(folder))
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return {
            "fault": (
                f"{type(error).__name__}: {str(error)[:200]!r} at {where.filename}:{where.lineno}"
            )
        }
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    if grown > GROWTH:
        return {"fault": f"{kind} took {grown >> 20} MB"}
    return {"what": f"{kind} {'loaded' if loaded else 'refused'}"}


def fresh(folder: Path, name: str) -> Path:
    """A new folder."""
    (made := folder / name).mkdir()
    return made


def tell(what: dict[str, Any]) -> None:
    """One line for the process that started this one."""
    print(json.dumps(what), flush=True)


def guided(seconds: int) -> None:
    """Lets atheris look for files that break a loader; never returns, and ends with an error when
    it found one."""
    import atheris

    from rtvc import printable, tensorfile
    from rtvc.models import build, checkpoints, loading, pickles
    from rtvc.models import read_checkpoint as states
    from rtvc.models.streaming import assets
    from rtvc.train import config, state
    from rtvc.voices import provenance, voice

    for module in (
        printable,
        tensorfile,
        build,
        checkpoints,
        loading,
        pickles,
        states,
        assets,
        config,
        state,
        provenance,
        voice,
    ):
        here = [
            found
            for found in vars(module).values()
            if getattr(found, "__module__", "") == module.__name__
        ]
        for found in here:
            for function in vars(found).values() if isinstance(found, type) else [found]:
                if isinstance(function, types.FunctionType):
                    atheris.instrument_func(function)
    warnings.simplefilter("ignore")

    def one_input(data: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            attempt(Bytes(data), Path(folder))

    limits = [
        f"-max_total_time={seconds}",
        f"-timeout={SECONDS}",
        "-rss_limit_mb=4096",
        "-max_len=1024",
        "-verbosity=1",
    ]
    atheris.Setup([sys.argv[0], *limits, "-print_final_stats=1"], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--worker", first, last]:
            worker(int(first), int(last))
        case ["--guided", seconds]:
            guided(int(seconds))
        case numbers:
            sys.exit(min(main(*map(int, numbers)), 100))
