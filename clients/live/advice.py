"""What to buy or to change, in plain words: what keeps live from working, and what would make it
better."""

import shutil
import sys
from collections.abc import Sequence
from typing import Any

SLOW_MS = 30.0
"""A device that adds more than this is worth another one, or another way to it."""
NEEDED = ("sounddevice",)
USEFUL = ("onnxruntime", "numba", "silero-vad")
"""Packages that live conversion is better with."""
FAST = {"avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16", "avx512_bf16", "i8mm"}
"""Features of processors that compute such models two to four times as fast."""
SLOW_HOSTS = {"MME": "Windows WASAPI", "Windows DirectSound": "Windows WASAPI", "OSS": "ALSA"}
"""Ways to a device that add some 50 to 200 ms, and the one to take instead."""
RADIO = ("bluetooth", "airpods", "bluez", "hands-free", "buds")
"""What devices are called whose sound goes through the air, which adds 100 to 250 ms that no
program sees."""
CABLES = {
    "darwin": ("BlackHole", "install BlackHole (`brew install blackhole-2ch`)", "BlackHole"),
    "win32": ("CABLE Input", "install VB-CABLE (https://vb-audio.com/Cable)", "CABLE Input"),
}
"""By system, what other programs can pick as a microphone: the name of its device, how to get it,
what to play to."""


def virtual_mic_lacks(devices: Sequence[dict[str, Any]], system: str = sys.platform) -> str | None:
    """What is missing for a microphone that other programs can pick, and what to do; None when
    nothing is."""
    if system not in CABLES:
        if shutil.which("pactl") is not None:
            return None
        return (
            "no virtual microphone: install pactl and a sound server (Debian: `apt-get install"
            " pipewire-pulse pulseaudio-utils`), then `rtvc live --virtual-mic`"
        )
    name, how, target = CABLES[system]
    if any(name.lower() in device["name"].lower() for device in devices if device["outputs"]):
        return None
    return f"no virtual microphone: {how}, then `rtvc live --output '{target}'`"


def problems(report: dict[str, Any]) -> list[str]:
    """Why live would not work, and what to do about each; empty when it does."""
    faults = []
    if missing := [name for name in NEEDED if report["packages"].get(name) is None]:
        faults.append(f"{', '.join(missing)} is missing: pip install 'rtvc-engine[live,onnx]'")
    elif report["sound"]["problem"]:
        faults.append(
            f"no microphone or no loudspeaker: {report['sound']['problem']}. Plug a headset in,"
            " start the system's sound server"
        )
    if "speed" in report and report["speed"]["recommended"] is None:
        busy = " as busy as it is now: close other programs and run doctor again" * busy_now(report)
        faults.append(f"the processor is too slow for any step of the model{busy}")
    return faults


def busy_now(report: dict[str, Any]) -> bool:
    """Whether other programs keep the processor busy."""
    return bool(report["cpu"]["load"] > 0.8 * (report["cpu"]["cores"] or 1))


def advice(report: dict[str, Any]) -> list[str]:
    """What would make the delay shorter or the sound safer, most useful first."""
    lines, here = [], set(report["cpu"]["features"])
    best = report.get("speed", {}).get("recommended")
    missing = [name for name in USEFUL if report["packages"].get(name) is None]
    if missing:
        lines.append(
            f"install {', '.join(missing)}: pip install 'rtvc-engine[live,onnx]'"
            + (" (steps take a third of the time)" if "onnxruntime" in missing else "")
        )
    if busy_now(report):
        lines.append(
            "close other programs: the processor is busy, and times here are worse than they need"
            " be"
        )
    if (best is None or best["chunk_ms"] > 12.5) and "speed" in report and not here & FAST:
        lines.append(
            "buy a processor with AVX-512 VNNI, AVX-VNNI or AMX (Intel since 2021, AMD since 2022)"
            " for steps of 12.5 ms"
        )
    for side in ("input", "output"):
        lines += of_device(report["sound"], side)
    if report["virtual_mic"]:
        lines.append(report["virtual_mic"])
    return lines


def of_device(sound: dict[str, Any], side: str) -> list[str]:
    """Advice about the microphone or the loudspeaker that is the default."""
    name, kind = sound.get(side), {"input": "microphone", "output": "loudspeaker"}[side]
    row = next((device for device in sound["devices"] if device["name"] == name), None)
    if name is None or row is None:
        return []
    if any(word in name.lower() for word in RADIO):
        return [f"use a {kind} with a cable: {name!r} goes through the air, some 100 to 250 ms"]
    if row["host"] in SLOW_HOSTS:
        better = SLOW_HOSTS[row["host"]]
        return [
            f"pick the {kind} by its {better} name (`rtvc devices`): {row['host']} adds 50 to"
            " 200 ms"
        ]
    if sound.get(f"{side}_ms", 0.0) > SLOW_MS:
        return [
            f"buy a USB headset or interface: the {kind} {name!r} adds"
            f" {sound[f'{side}_ms']:.0f} ms, others 5 to 15"
        ]
    return []
