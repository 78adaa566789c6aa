"""A private, headless PulseAudio server whose microphone and speaker are the two channels of one
clock.

Sinks `mic` and `speaker` are the left and the right channel of one null sink; the source `voice` is
what is played into `mic`. Recording the null sink's monitor shows what was said and what was heard
side by side, on one time line, which is how the capture-to-playback time is measured without
trusting anybody's time stamps.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from rtvc.errors import DependencyError, DeviceError

Samples = NDArray[np.float32]

MODULES = (
    (
        "module-null-sink sink_name=room rate={rate} format=float32le channels=2"
        " channel_map=front-left,front-right"
    ),
    (
        "module-remap-sink sink_name=mic master=room channels=1 channel_map=mono"
        " master_channel_map=front-left remix=no"
    ),
    (
        "module-remap-sink sink_name=speaker master=room channels=1 channel_map=mono"
        " master_channel_map=front-right remix=no"
    ),
    (
        "module-remap-source source_name=voice master=room.monitor channels=1 channel_map=mono"
        " master_channel_map=front-left remix=no"
    ),
)
HASTE = ("nice", "-n", "-11")
"""Sound comes before other work, where the system allows it: elsewhere `nice` says so and goes
on."""
PATIENCE_S = 20.0
"""How long the server may take to answer, on a busy machine."""


@dataclass
class Room:
    """A running server.

    Attributes:
        environment: variables by which clients, PortAudio's included, find it, speak to `voice` and
            play to `speaker`.
        rate: of its devices, in Hz.
    """

    folder: Path
    rate: int
    environment: dict[str, str] = field(default_factory=dict)

    def command(self, *arguments: str) -> str:
        """Runs a client program and returns what it printed.

        Raises:
            DeviceError: when the server refuses.
        """
        done = subprocess.run(
            arguments,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise DeviceError(f"{' '.join(arguments)} failed: {done.stderr.strip()}")
        return done.stdout

    def say(self, samples: Samples, *, device: str = "mic") -> "subprocess.Popen[bytes]":
        """Plays samples (N,) at the server's rate into a sink, in the background."""
        path = self.folder / f"say-{time.monotonic_ns()}.wav"
        soundfile.write(path, samples, self.rate, subtype="FLOAT")
        arguments = [*HASTE, "paplay", f"--device={device}", "--latency-msec=20", str(path)]
        return subprocess.Popen(
            arguments, env={**os.environ, **self.environment}, stderr=subprocess.DEVNULL
        )

    @contextmanager
    def recording(self, path: Path) -> Iterator[None]:
        """Records both channels, float32, into a raw file: what was said (left) and what was heard
        (right)."""
        arguments = [
            *HASTE,
            "parec",
            "--device=room.monitor",
            "--format=float32le",
            f"--rate={self.rate}",
            "--channels=2",
            "--latency-msec=20",
        ]
        with path.open("wb") as file:
            recorder = subprocess.Popen(
                arguments,
                stdout=file,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **self.environment},
            )
            try:
                yield
            finally:
                recorder.terminate()
                recorder.wait(10)


def recorded(path: Path) -> Samples:
    """What `Room.recording` wrote: (2, N), said and heard."""
    samples: Samples = np.fromfile(path, np.float32)
    return samples[: len(samples) // 2 * 2].reshape(-1, 2).T.copy()


@contextmanager
def room(rate: int = 48_000) -> Iterator[Room]:
    """Starts the server, and stops it when the block ends.

    Raises:
        DependencyError: when PulseAudio is not installed.
        DeviceError: when the server does not come up.
    """
    for program in ("pulseaudio", "pactl", "paplay", "parec"):
        if shutil.which(program) is None:
            raise DependencyError(
                f"{program} is missing: apt-get install pulseaudio pulseaudio-utils libportaudio2"
                " libasound2-plugins"
            )
    folder = Path(tempfile.mkdtemp(prefix="rtvc-room-"))
    socket = folder / "socket"
    environment = {
        "PULSE_SERVER": f"unix:{socket}",
        "PULSE_SOURCE": "voice",
        "PULSE_SINK": "speaker",
        "PULSE_RUNTIME_PATH": str(folder),
        "PULSE_COOKIE": str(folder / "cookie"),
    }
    private = {
        **os.environ,
        "HOME": str(folder),
        "PULSE_RUNTIME_PATH": str(folder),
        "PULSE_STATE_PATH": str(folder),
    }
    arguments = [
        *HASTE,
        "pulseaudio",
        "-n",
        "--daemonize=no",
        "--exit-idle-time=-1",
        "--disable-shm=yes",
        "--use-pid-file=no",
        "--log-level=error",
    ]
    for module in (f"module-native-protocol-unix auth-anonymous=1 socket={socket}", *MODULES):
        arguments += ["-L", module.format(rate=rate)]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(arguments, env=private, stdout=log, stderr=log)
    found, keepers = Room(folder, rate, environment), list["subprocess.Popen[bytes]"]()
    try:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                if "speaker" in found.command("pactl", "list", "short", "sinks"):
                    break
            except DeviceError:
                pass
            if server.poll() is not None or time.monotonic() > deadline:
                raise DeviceError(
                    "PulseAudio did not start:"
                    f" {(folder / 'log').read_text().strip() or 'no answer'}"
                )
            time.sleep(0.1)
        # A null sink works in blocks as long as its clients allow: silence in short blocks keeps
        # them short from the beginning.
        silence = [
            "--playback",
            "--format=float32le",
            "--channels=1",
            f"--rate={rate}",
            "--latency-msec=10",
        ]
        for sink in ("mic", "speaker"):
            with open("/dev/zero", "rb") as zero:
                arguments = [*HASTE, "pacat", *silence, f"--device={sink}"]
                own = {**os.environ, **environment}
                keepers.append(
                    subprocess.Popen(arguments, stdin=zero, env=own, stderr=subprocess.DEVNULL)
                )
        time.sleep(0.5)
        yield found
    finally:
        for keeper in keepers:
            keeper.terminate()
            keeper.wait(10)
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
        shutil.rmtree(folder, ignore_errors=True)
