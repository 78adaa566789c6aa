"""A virtual microphone on Linux: what rtvc plays becomes a source that other programs can pick.

PipeWire and PulseAudio both understand these commands of `pactl`. The names are ours, so a device
that a crash left behind is found and removed at the next start.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Self

from rtvc.errors import DependencyError, DeviceError

SINK, SOURCE, TITLE = "rtvc_output", "rtvc_microphone", "rtvc-microphone"
"""The sink that rtvc plays into, the source that others record, and the name that people see."""


def pactl(*arguments: str) -> str:
    """Runs pactl and returns what it printed.

    Raises:
        DependencyError: when pactl is not installed.
        DeviceError: when there is no sound server or it refuses.
    """
    if shutil.which("pactl") is None:
        raise DependencyError(
            "a virtual microphone needs pactl: install pulseaudio-utils (Debian, with PipeWire as"
            " well)"
        )
    done = subprocess.run(
        ["pactl", *arguments], capture_output=True, text=True, timeout=20, check=False
    )
    if done.returncode:
        raise DeviceError(
            f"pactl {' '.join(arguments)} failed: {done.stderr.strip() or 'no answer'}. Is PipeWire"
            " or PulseAudio running?"
        )
    return done.stdout.strip()


def check_server() -> None:
    """Refuses where no virtual microphone can be made.

    Raises:
        DependencyError: pactl is not installed.
        DeviceError: there is no sound server.
    """
    pactl("info")


def remove() -> int:
    """Unloads every module that carries our names; returns how many there were."""
    rows = [row.split("\t") for row in pactl("list", "short", "modules").splitlines()]
    ours = [
        row[0] for row in rows if len(row) > 2 and any(name in row[2] for name in (SINK, SOURCE))
    ]
    for module in reversed(ours):  # the source stands on the sink
        pactl("unload-module", module)
    return len(ours)


@contextmanager
def virtual_mic(*, monitor: bool = False) -> Iterator[str]:
    """Creates the microphone, directs this process's playback to it, and removes it when the block
    ends.

    Args:
        monitor: let the default speaker sound too.

    Yields:
        The name under which other programs see it.
    """
    remove()
    before = os.environ.get("PULSE_SINK")
    try:
        pactl(
            "load-module",
            "module-null-sink",
            f"sink_name={SINK}",
            f"sink_properties=device.description={SINK}",
        )
        described = f"source_properties=device.description={TITLE}"
        pactl(
            "load-module",
            "module-remap-source",
            f"master={SINK}.monitor",
            f"source_name={SOURCE}",
            described,
        )
        if monitor:
            speaker = before or pactl("get-default-sink")
            pactl(
                "load-module",
                "module-loopback",
                f"source={SINK}.monitor",
                f"sink={speaker}",
                "latency_msec=20",
            )
        os.environ["PULSE_SINK"] = SINK
        yield TITLE
    finally:
        if before is None:
            os.environ.pop("PULSE_SINK", None)
        else:
            os.environ["PULSE_SINK"] = before
        remove()


class VirtualMic:
    """The virtual microphone with a switch; as a context manager it is gone afterwards.

    Args:
        monitor: let the default speaker sound too.
    """

    def __init__(self, *, monitor: bool = False) -> None:
        self.monitor = monitor
        self._stack: ExitStack | None = None

    @property
    def on(self) -> bool:
        """Whether other programs see it."""
        return self._stack is not None

    def start(self) -> None:
        """Creates it, unless it is there.

        Raises:
            DependencyError: pactl is not installed.
            DeviceError: there is no sound server.
        """
        if self._stack is None:
            with ExitStack() as stack:
                stack.enter_context(virtual_mic(monitor=self.monitor))
                self._stack = stack.pop_all()

    def stop(self) -> None:
        """Removes it, if it is there."""
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def can_be() -> bool:
    """Whether this machine can have one: it has the program that makes it."""
    return shutil.which("pactl") is not None
