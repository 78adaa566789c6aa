"""Audio devices: which there are, and the one that was meant."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from rtvc.errors import DependencyError, DeviceError

SERVER = "pulse:"
"""Before the name of a device that PulseAudio or PipeWire has, and PortAudio knows nothing of."""
LISTS = (("sources", "input"), ("sinks", "output"))
THROUGH = {"default", "pipewire", "pulse"}
"""What ALSA calls the ways to a sound server."""
PATIENCE_S = 5.0
"""Seconds that the sound server may take to answer."""


@dataclass(frozen=True)
class Device:
    """One device.

    Attributes:
        index: by which PortAudio knows it.
        name: as people know it.
        host: the host interface: ALSA, Core Audio, WASAPI ...
        inputs: channels that can be recorded.
        outputs: channels that can be played.
        rate: its own sample rate, in Hz.
        latency_in: seconds, as the device says; latency_out likewise.
        default: `input`, `output`, `both` or nothing.
        server: its name at the sound server, where that is what tells it from others.
    """

    index: int
    name: str
    host: str
    inputs: int
    outputs: int
    rate: int
    latency_in: float
    latency_out: float
    default: str
    server: str = ""

    @property
    def key(self) -> str:
        """What `pick` finds it by, and no other."""
        return f"{SERVER}{self.server}" if self.server else self.name

    @property
    def by_server(self) -> bool:
        """Whether PulseAudio or PipeWire stands before it."""
        return bool(self.server) or (self.host == "ALSA" and self.name in THROUGH)

    def row(self) -> dict[str, Any]:
        """As a dictionary, for JSON."""
        return asdict(self) | {"key": self.key}


def portaudio() -> Any:
    """The sounddevice module.

    Raises:
        DependencyError: when it or the PortAudio library is not installed.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        raise DependencyError(
            f"live audio needs PortAudio ({error}): pip install 'rtvc-engine[live]'; Debian:"
            " apt-get install libportaudio2"
        ) from error
    return sounddevice


def refresh() -> None:
    """Makes PortAudio look for devices again; no stream may be open."""
    module = portaudio()
    module._terminate()
    module._initialize()


def devices() -> list[Device]:
    """All devices, in PortAudio's order."""
    module = portaudio()
    chosen_in, chosen_out = module.default.device
    hosts = module.query_hostapis()
    if chosen_in < 0 and hosts:
        chosen_in = hosts[0]["default_input_device"]
    if chosen_out < 0 and hosts:
        chosen_out = hosts[0]["default_output_device"]
    known = []
    for index, entry in enumerate(module.query_devices()):
        roles = [
            role
            for role, chosen in (("input", chosen_in), ("output", chosen_out))
            if chosen == index
        ]
        known.append(
            Device(
                index,
                entry["name"],
                hosts[entry["hostapi"]]["name"],
                entry["max_input_channels"],
                entry["max_output_channels"],
                round(entry["default_samplerate"]),
                entry["default_low_input_latency"],
                entry["default_low_output_latency"],
                "both" if len(roles) == 2 else "".join(roles),
            )
        )
    return known


def server_devices(known: list[Device]) -> list[Device]:
    """The microphones and loudspeakers of PulseAudio or PipeWire, which PortAudio reaches through
    one device; none where there is no such server, or PortAudio has no way to it.

    Args:
        known: PortAudio's devices.
    """
    way = next((device for device in known if device.name == "pulse"), None)
    if way is None or shutil.which("pactl") is None:
        return []
    listed = list[Device]()
    for what, kind in LISTS:
        for entry in server_entries(what):
            if entry["properties"].get("device.class") == "monitor":
                continue  # what a loudspeaker plays: nobody speaks there
            channels = len(entry["channel_map"].split(","))
            listed.append(
                replace(
                    way,
                    name=entry["description"],
                    inputs=channels if kind == "input" else 0,
                    outputs=channels if kind == "output" else 0,
                    rate=entry_rate(entry) or way.rate,
                    default="",
                    server=entry["name"],
                )
            )
    return listed


def server_entries(what: str) -> list[dict[str, Any]]:
    """What the sound server knows of its `sources` or `sinks`; nothing where it does not answer."""
    command = ["pactl", "--format=json", "list", what]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_S, check=True
        )
        entries: list[dict[str, Any]] = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return []
    return entries


def entry_rate(entry: dict[str, Any]) -> int | None:
    """The rate in Hz of a source or a sink, which says it as `s16le 2ch 48000Hz`."""
    match = re.search(r"(\d+) ?Hz", str(entry.get("sample_specification", "")))
    return int(match.group(1)) if match else None


def own_rate(device: Device, kind: str) -> int:
    """The rate in Hz at which a device works. PortAudio says 44,100 of every way to a sound server;
    at another rate than the server's own, the server resamples, which takes time.

    Args:
        device: as of `pick`.
        kind: `input` or `output`.
    """
    if device.server or not device.by_server:
        return device.rate
    what, variable = ("sources", "PULSE_SOURCE") if kind == "input" else ("sinks", "PULSE_SINK")
    entries = server_entries(what)
    name = os.environ.get(variable) or server_default(kind)
    rates = {entry["name"]: entry_rate(entry) for entry in entries}
    return rates.get(name) or device.rate


def server_default(kind: str) -> str:
    """The sound server's name of the microphone or loudspeaker that it takes by itself; empty
    where it does not answer."""
    command = ["pactl", f"get-default-{'source' if kind == 'input' else 'sink'}"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


@contextmanager
def directed(device: Device, incoming: bool) -> Iterator[None]:
    """While the block runs, what is opened at the sound server is this device."""
    if not device.server:
        yield
        return
    variable = "PULSE_SOURCE" if incoming else "PULSE_SINK"
    before = os.environ.get(variable)
    os.environ[variable] = device.server
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def pick(name: str | None, kind: str, known: list[Device] | None = None) -> Device:
    """The device that is meant.

    Args:
        name: an index, a name or a part of one, `pulse:NAME`; None for the default.
        kind: `input` or `output`.
        known: the devices to choose from; by default all.

    Raises:
        DeviceError: when none or several fit.
    """
    everything = devices() if known is None else known
    if name is not None and name.startswith(SERVER):
        everything = [*everything, *server_devices(everything)]
    able = [d for d in everything if (d.inputs if kind == "input" else d.outputs)]
    if name is None:
        fitting = [d for d in able if d.default in (kind, "both")] or able[:1]
    elif name.startswith(SERVER):
        fitting = [d for d in able if d.server and d.key == name]
    elif name.isdigit():
        fitting = [d for d in able if d.index == int(name)]
    else:
        exact = [d for d in able if d.name == name]
        fitting = exact or [d for d in able if name.lower() in d.name.lower()]
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(f"{d.index} {d.name!r}" for d in fitting or able) or "none"
    problem = "no" if not fitting else "more than one"
    raise DeviceError(
        f"{problem} {kind} device fits {name or 'the default'}; there are: {names}. See `rtvc"
        " devices`"
    )
