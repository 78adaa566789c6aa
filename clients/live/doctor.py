"""What this machine can do: devices, CPU, packages, step times, and the latency to expect."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

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
BLOCK_MS, MARGIN_MS = 10.0, 10.0


def cpu() -> dict[str, Any]:
    """The processor, its cores and the features that matter."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.is_file() else ""
    flags = set(
        " ".join(
            row.split(":", 1)[1]
            for row in text.splitlines()
            if row.startswith(("flags", "Features"))
        ).split()
    )
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return {
        "name": machine(),
        "cores": os.cpu_count(),
        "load": round(load, 2),
        "features": [name for name in FEATURES if name in flags],
    }


def packages() -> dict[str, str | None]:
    """Versions of the packages that backends and devices need; None for what is missing."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def sound() -> dict[str, Any]:
    """Devices, or what keeps us from them."""
    from rtvc.clients.live.devices import devices, pick

    try:
        known = devices()
        source, sink = pick(None, "input", known), pick(None, "output", known)
    except RtvcError as error:
        return {"devices": [], "problem": str(error)}
    delay = 1000 * (source.latency_in + sink.latency_out)
    return {
        "devices": [device.row() for device in known],
        "input": source.name,
        "output": sink.name,
        "device_ms": round(delay, 1),
        "problem": None,
    }


def speed(converter: Converter, *, again: bool = False) -> dict[str, Any]:
    """Step times of every backend at every chunk size, and the shortest chunk that is safe here."""
    found: dict[str, Any] = {"chunks": {}, "recommended": None}
    for chunk in CHUNKS:
        backend, measured = choose(converter, chunk, again=again)
        milliseconds = 1000 * chunk / converter.sample_rate
        figures = measured["measured"][backend.name]
        found["chunks"][f"{milliseconds:g}"] = measured
        if found["recommended"] is None and figures["p95_ms"] <= SAFE * milliseconds:
            found["recommended"] = {
                "chunk_ms": milliseconds,
                "engine": backend.name,
                "step_p95_ms": round(figures["p95_ms"], 2),
            }
            break
    return found


def expect(
    speed_found: dict[str, Any], sound_found: dict[str, Any], converter: Converter
) -> float | None:
    """Milliseconds from mouth to ear with the recommended settings; None when no chunk is safe."""
    best = speed_found["recommended"]
    if best is None:
        return None
    algorithm = 1000 * converter.latency / converter.sample_rate
    whole = (
        best["chunk_ms"]
        + algorithm
        + best["step_p95_ms"]
        + BLOCK_MS
        + MARGIN_MS
        + sound_found.get("device_ms", 0.0)
    )
    return round(float(whole), 1)


def examine(converter: Converter | None, *, again: bool = False) -> dict[str, Any]:
    """Everything `rtvc doctor` reports; without a converter, no step is timed."""
    heard = sound()
    report: dict[str, Any] = {
        "python": sys.version.split()[0],
        "system": platform.platform(),
        "cpu": cpu(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "packages": packages(),
        "sound": heard,
        "advice": [],
    }
    if converter is not None:
        report["speed"] = speed(converter, again=again)
        report["expected_ms"] = expect(report["speed"], heard, converter)
        if report["expected_ms"] is None:
            report["advice"].append(
                "no chunk size is safe on this machine as busy as it is now: close other programs"
                " and run doctor again"
            )
    if heard["problem"]:
        report["advice"].append(heard["problem"])
    if report["cpu"]["load"] > 0.8 * (report["cpu"]["cores"] or 1):
        report["advice"].append(
            "other programs keep the processor busy: times here are worse than they need be"
        )
    missing = [
        name
        for name in ("onnxruntime", "numba", "sounddevice", "silero-vad")
        if report["packages"][name] is None
    ]
    if missing:
        report["advice"].append(
            f"live conversion lacks {', '.join(missing)}: pip install 'rtvc-engine[live,onnx]'"
        )
    return report
