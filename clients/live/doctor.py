"""What this machine can do: devices, CPU, packages, step times, and the latency to expect."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rtvc import processor
from rtvc.clients.live.advice import advice, problems, virtual_mic_lacks
from rtvc.engine.auto import choose
from rtvc.engine.open import CHUNKS, SAFE
from rtvc.engine.registry import machine
from rtvc.errors import RtvcError
from rtvc.models.streaming.interface import Converter

PACKAGES = (
    "torch",
    "onnxruntime",
    "openvino",
    "numba",
    "sounddevice",
    "pyaudio",
    "silero-vad",
    "websockets",
    "triton",
)
FEATURES = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "bf16",
    "i8mm",
)
"""CPU features that make steps faster, as Linux spells them."""
BLOCK_MS, MARGIN_MS = 5.0, 4.0


def cpu() -> dict[str, Any]:
    """The processor, its cores and the features that matter."""
    flags = processor.features() or set()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return {
        "name": machine(),
        "cores": os.cpu_count(),
        "load": round(load, 2),
        "features": [name for name in FEATURES if name in flags],
    }


def packages() -> dict[str, str | None]:
    """Versions of the packages that backends and devices need; None for what is missing."""
    installed: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            installed[name] = None
    return installed


def sound() -> dict[str, Any]:
    """Devices, or what keeps us from them."""
    from rtvc.clients.live.devices import devices, pick

    try:
        known = devices()
        source, sink = pick(None, "input", known), pick(None, "output", known)
    except RtvcError as error:
        return {"devices": [], "problem": str(error)}
    return {
        "devices": [device.row() for device in known],
        "input": source.name,
        "output": sink.name,
        "hosts": sorted({source.host, sink.host}),
        "input_ms": round(1000 * source.latency_in, 1),
        "output_ms": round(1000 * sink.latency_out, 1),
        "device_ms": round(1000 * (source.latency_in + sink.latency_out), 1),
        "problem": None,
    }


def speed(converter: Converter, *, again: bool = False) -> dict[str, Any]:
    """Step times of every backend at every chunk size, and the shortest chunk that is safe here."""
    report: dict[str, Any] = {"chunks": {}, "recommended": None}
    for chunk in CHUNKS:
        backend, measured = choose(converter, chunk, again=again)
        milliseconds = 1000 * chunk / converter.sample_rate
        figures = measured["measured"][backend.name]
        report["chunks"][f"{milliseconds:g}"] = measured
        if report["recommended"] is None and figures["p95_ms"] <= SAFE * milliseconds:
            report["recommended"] = {
                "chunk_ms": milliseconds,
                "engine": backend.name,
                "step_p95_ms": round(figures["p95_ms"], 2),
            }
            break
    return report


def budget(
    speed_report: dict[str, Any], sound_report: dict[str, Any], converter: Converter
) -> dict[str, float]:
    """Milliseconds from mouth to ear with the recommended settings, by what adds them; nothing when
    no chunk is safe."""
    best = speed_report["recommended"]
    if best is None:
        return {}
    return {
        "microphone": sound_report.get("input_ms", 0.0),
        "block": BLOCK_MS,
        "step": best["chunk_ms"],
        "look-ahead": 1000 * converter.latency / converter.sample_rate,
        "computing": best["step_p95_ms"],
        "queue": MARGIN_MS,
        "loudspeaker": sound_report.get("output_ms", 0.0),
    }


def examine(converter: Converter | None, *, again: bool = False) -> dict[str, Any]:
    """Everything `rtvc doctor` reports; without a converter, no step is timed.

    Returns:
        What was found, `budget_ms`, `expected_ms`, `virtual_mic` (what is missing for one, or
        None), `problems` (without which live works: `works`) and `advice`.
    """
    ports = sound()
    report: dict[str, Any] = {
        "python": sys.version.split()[0],
        "system": platform.platform(),
        "cpu": cpu(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "packages": packages(),
        "sound": ports,
    }
    if converter is not None:
        report["speed"] = speed(converter, again=again)
        report["budget_ms"] = budget(report["speed"], ports, converter)
        total = sum(report["budget_ms"].values())
        report["expected_ms"] = round(total, 1) if report["budget_ms"] else None
    report["virtual_mic"] = virtual_mic_lacks(ports["devices"])
    report["problems"], report["advice"] = problems(report), advice(report)
    report["works"] = not report["problems"]
    return report
