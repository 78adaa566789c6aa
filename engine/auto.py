"""`auto`: which backend is the fastest here? Measured once a machine, model and chunk, then
remembered."""

import contextlib
import json
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rtvc.data.registry import cache_dir
from rtvc.engine.backends.base import Backend
from rtvc.engine.backends.eager import TorchBackend
from rtvc.engine.cached import open_backend
from rtvc.engine.identity import model_hash
from rtvc.engine.registry import BACKENDS, machine, versions
from rtvc.engine.streams.session import Style
from rtvc.errors import OutputError, RtvcError
from rtvc.files import read_json, write_json
from rtvc.models.streaming.interface import Converter

CANDIDATES = ("torch-eager", "onnx", "onnx-int8", "openvino-bf16", "openvino-int8")
"""What `auto` tries. `torch-compile` is left out: it takes minutes to build and needs a
compiler."""
FIDELITY_DB = 10.0
"""Least ratio of signal to error, over magnitude spectra, against torch eager on the probe: below
it a backend is not a faster model but another one. Waveforms would not do: the least error of pitch
shifts every later phase, which nobody hears."""
MEMORY = "auto.json"
EAGER = ("torch-eager", "eager")
"""Names of the backend that needs no file."""


def cache_folder() -> Path:
    """Where engines and measurements are kept, in `rtvc.data.registry.cache_dir`.

    Raises:
        ConfigError: that is no folder.
    """
    return cache_dir() / "engines"


def key(converter: Converter, chunk: int, candidates: Sequence[str]) -> str:
    """What a measurement holds for: this machine, model, chunk, and these versions of the
    candidates' packages."""
    packages = {
        package: v
        for name in candidates
        if name in BACKENDS
        for package, v in versions(name).items()
    }
    return json.dumps(
        [machine(), model_hash(converter), chunk, torch.__version__, sorted(packages.items())]
    )


def installed(candidates: Sequence[str]) -> list[str]:
    """The candidates whose packages are there."""
    return [
        name
        for name in candidates
        if all(find_spec(package) for package in BACKENDS.get(name, ("", "", ()))[2])
    ]


def probe(chunk: int, steps: int, rate: int = 24_000) -> Tensor:
    """A voice-like test signal (steps, 1, 1, chunk): harmonics of a gliding pitch in syllables, and
    breath."""
    t = np.arange(chunk * steps) / rate
    phase = 2 * np.pi * np.cumsum(140 + 40 * np.sin(2 * np.pi * 0.7 * t)) / rate
    voiced = sum(np.sin(k * phase) / k for k in range(1, 24)) * np.clip(
        np.sin(2 * np.pi * 3 * t), 0, 1
    )
    breath = np.random.default_rng(0).standard_normal(len(t)) * 0.02
    return torch.from_numpy((0.1 * voiced + breath).astype(np.float32)).reshape(steps, 1, 1, chunk)


def fidelity(got: NDArray[np.float64], wanted: NDArray[np.float64], size: int = 1024) -> float:
    """Signal over error of the magnitude spectra of two signals (N,), in dB."""

    def magnitudes(x: NDArray[np.float64]) -> NDArray[np.float64]:
        frames = np.lib.stride_tricks.sliding_window_view(np.pad(x, (0, size)), size)[:: size // 4]
        return np.abs(np.fft.rfft(frames * np.hanning(size)))

    target = magnitudes(wanted)
    error = float(((magnitudes(got) - target) ** 2).sum())
    return 10 * float(np.log10(max((target**2).sum(), 1e-30) / max(error, 1e-30)))


def compare(backends: Sequence[Backend], steps: int = 40) -> list[dict[str, float]]:
    """Steps all backends in turn over the same signal; the first is the reference.

    Returns:
        For each: p50_ms, p95_ms, cpu_ms (median processor time) and fidelity_db against the first.
    """
    signal, generator = probe(backends[0].chunk, steps), torch.Generator().manual_seed(0)
    voice = Style(
        torch.randn(128, generator=generator) * 0.1, torch.randn(128, generator=generator) * 0.1
    )
    conditions, states = [b.condition(voice) for b in backends], [b.initial(1) for b in backends]
    walls, cpus = np.zeros((len(backends), steps)), np.zeros((len(backends), steps))
    outputs = np.zeros((len(backends), steps, backends[0].chunk))
    for step in range(steps):
        for index, backend in enumerate(backends):
            wall, cpu = time.perf_counter(), time.process_time()
            y, states[index] = backend.step(
                signal[step].to(backend.device), conditions[index], states[index]
            )
            outputs[index, step] = y[0, 0].cpu().numpy()
            walls[index, step], cpus[index, step] = (
                time.perf_counter() - wall,
                time.process_time() - cpu,
            )
    warm = steps // 8
    found = []
    for index in range(len(backends)):
        p50, p95 = np.percentile(walls[index, warm:], [50, 95]) * 1000
        found.append(
            {
                "p50_ms": float(p50),
                "p95_ms": float(p95),
                "cpu_ms": float(np.median(cpus[index, warm:])) * 1000,
                "fidelity_db": fidelity(outputs[index].ravel(), outputs[0].ravel()),
            }
        )
    return found


def recall(cache: Path, name: str) -> dict[str, Any] | None:
    """A remembered measurement, if there is one."""
    found = remembered(cache).get(name)
    return found if isinstance(found, dict) and isinstance(found.get("backend"), str) else None


def remembered(cache: Path) -> dict[str, Any]:
    """Everything that was measured on this machine; nothing where the file is missing or
    damaged."""
    try:
        known = read_json(cache / MEMORY)
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def remember(cache: Path, name: str, found: dict[str, Any]) -> None:
    """Keeps a measurement beside those of other models and machines."""
    with contextlib.suppress(OutputError):  # then it is measured again the next time
        write_json(cache / MEMORY, remembered(cache) | {name: found})


def choose(
    converter: Converter,
    chunk: int,
    *,
    cache: Path | None = None,
    candidates: Sequence[str] = CANDIDATES,
    again: bool = False,
) -> tuple[Backend, dict[str, Any]]:
    """The fastest backend of this machine, and what was measured; engines that are missing are
    built.

    Args:
        converter: the model.
        chunk: samples a step.
        cache: folder of engines and measurements; by default `cache_folder()`.
        candidates: names to try; `torch-eager` is always among them, as the reference.
        again: measure even if there is a memory.
    """
    cache = cache_folder() if cache is None else cache
    names = installed(["torch-eager", *(name for name in candidates if name != "torch-eager")])
    known = None if again else recall(cache, key(converter, chunk, names))
    if known is not None:
        try:
            return open_backend(converter, known["backend"], chunk, cache), known
        except RtvcError:
            pass  # its package is gone or broken: measure anew
    backends, refused = list[Backend]([TorchBackend(converter, chunk)]), dict[str, str]()
    for name in names[1:]:
        try:
            backends.append(open_backend(converter, name, chunk, cache))
        except RtvcError as error:
            refused[name] = str(error)
    measured = {
        backend.name: figures for backend, figures in zip(backends, compare(backends), strict=True)
    }
    faithful = {
        name: figures for name, figures in measured.items() if figures["fidelity_db"] >= FIDELITY_DB
    }
    best = min(faithful, key=lambda name: faithful[name]["cpu_ms"])
    found = {"backend": best, "measured": measured, "refused": refused}
    remember(cache, key(converter, chunk, names), found)
    return next(backend for backend in backends if backend.name == best), found
