"""Audio devices: which there are, and the one that was meant."""

from dataclasses import asdict, dataclass
from typing import Any

from rtvc.errors import DependencyError, DeviceError


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

    def row(self) -> dict[str, Any]:
        """As a dictionary, for JSON."""
        return asdict(self)


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
    found = []
    for index, entry in enumerate(module.query_devices()):
        roles = [
            role
            for role, chosen in (("input", chosen_in), ("output", chosen_out))
            if chosen == index
        ]
        found.append(
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
    return found


def pick(wanted: str | None, kind: str, known: list[Device] | None = None) -> Device:
    """The device that is meant.

    Args:
        wanted: an index, a name or a part of one; None for the default.
        kind: `input` or `output`.
        known: the devices to choose from; by default all.

    Raises:
        DeviceError: when none or several fit.
    """
    able = [
        d
        for d in (devices() if known is None else known)
        if (d.inputs if kind == "input" else d.outputs)
    ]
    if wanted is None:
        found = [d for d in able if d.default in (kind, "both")] or able[:1]
    elif wanted.isdigit():
        found = [d for d in able if d.index == int(wanted)]
    else:
        exact = [d for d in able if d.name == wanted]
        found = exact or [d for d in able if wanted.lower() in d.name.lower()]
    if len(found) == 1:
        return found[0]
    names = ", ".join(f"{d.index} {d.name!r}" for d in found or able) or "none"
    problem = "no" if not found else "more than one"
    raise DeviceError(
        f"{problem} {kind} device fits {wanted or 'the default'}; there are: {names}. See `rtvc"
        " devices`"
    )
