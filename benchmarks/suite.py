"""The component benchmarks as pytest-benchmark runs them; started by `rtvc bench components`,
settings in the environment.

RTVC_BENCH holds JSON: model, backends, chunks, threads, rounds, output.
"""

import json
import os
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rtvc.benchmarks.components import BACKENDS, Case, cases, ready
from rtvc.engine.loading import streaming

SETTINGS: dict[str, Any] = json.loads(os.environ.get("RTVC_BENCH", "{}"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test a case and thread count."""
    if "case" not in metafunc.fixturenames or not SETTINGS:
        return
    _, converter = streaming(SETTINGS.get("model"))
    chunks = tuple(SETTINGS["chunks"]) if SETTINGS.get("chunks") else None
    found = list(cases(converter, tuple(SETTINGS.get("backends") or BACKENDS), chunks))
    metafunc.parametrize("case", found, ids=[case.name for case in found])
    metafunc.parametrize("threads", SETTINGS.get("threads") or [1])


def bench_component(benchmark: Any, case: Case, threads: int) -> None:
    """Times one case and appends its row to the output."""
    torch.set_num_threads(threads)
    call = ready(case)
    if isinstance(call, str):
        pytest.skip(call)
    began = time.perf_counter()
    call()
    first = time.perf_counter() - began
    rounds = int(SETTINGS.get("rounds", 100))
    benchmark.pedantic(call, rounds=rounds, warmup_rounds=max(1, rounds // 10))
    times = np.array(benchmark.stats.stats.data) * 1000
    p50, p95, p99 = np.percentile(times, [50, 95, 99]).tolist()
    row = {
        "component": case.component,
        "backend": case.backend,
        "threads": threads,
        "chunk_ms": case.chunk_ms,
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "rtf": p50 / case.chunk_ms,
        "first_ms": 1000 * first,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    with Path(SETTINGS["output"]).open("a") as file:
        file.write(json.dumps(row) + "\n")
