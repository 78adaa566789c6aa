"""A private, headless sound server whose microphone and speaker are the two channels of one clock.

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
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from rtvc.audio.samples import Samples
from rtvc.benchmarks.live.sound_servers import (
    HASTE,
    PATIENCE_S,
    QUANTUM,
    address,
    check_server,
    ended,
    hurry,
    running,
)
from rtvc.errors import DeviceError

MODULES = (
    (
        "module-null-sink sink_name=room rate={rate} format=float32le channels=2"
        " channel_map=front-left,front-right"
    ),
    (
        "module-remap-sink sink_name=mic master=room channels=1 channel_map=mono"
        " master_channel_map=front-left remix=no sink_properties=device.description=Mouth"
    ),
    (
        "module-remap-sink sink_name=speaker master=room channels=1 channel_map=mono"
        " master_channel_map=front-right remix=no sink_properties=device.description=Speaker"
    ),
    (
        "module-remap-source source_name=voice master=room.monitor channels=1 channel_map=mono"
        " master_channel_map=front-left remix=no source_properties=device.description=Voice"
    ),
)


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
def room(rate: int = 48_000, server: str = "pulseaudio") -> Iterator[Room]:
    """Starts the server, and stops it when the block ends.

    Args:
        rate: of its devices, in Hz.
        server: `pulseaudio` or `pipewire`.

    Raises:
        ConfigError: another server.
        DependencyError: when the server is not installed.
        DeviceError: when it does not come up.
    """
    check_server(server)
    folder = Path(tempfile.mkdtemp(prefix="rtvc-room-"))
    chosen = {"PULSE_SOURCE": "voice", "PULSE_SINK": "speaker"}
    opened = Room(folder, rate, address(server, folder) | chosen)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        programs = stack.enter_context(running(server, folder))
        await_answer(opened, programs)
        hurry(programs)
        for module in MODULES:
            opened.command("pactl", "load-module", *module.format(rate=rate).split())
        if server == "pipewire":
            force = ["pw-metadata", "-n", "settings", "0", "clock.force-quantum", str(QUANTUM)]
            opened.command(*force)
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
            zero = stack.enter_context(open("/dev/zero", "rb"))
            keeper = subprocess.Popen(
                [*HASTE, "pacat", *silence, f"--device={sink}"],
                stdin=zero,
                env={**os.environ, **opened.environment},
                stderr=subprocess.DEVNULL,
            )
            stack.callback(ended, keeper)
        time.sleep(0.5)
        yield opened


def await_answer(place: Room, programs: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Returns when the server answers.

    Raises:
        DeviceError: one of its programs ended, or it does not in `PATIENCE_S`.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with suppress(DeviceError):
            place.command("pactl", "info")
            return
        if any(program.poll() is not None for program in programs) or time.monotonic() > deadline:
            log = (place.folder / "log").read_text().strip() or "no answer"
            raise DeviceError(f"the sound server did not start: {log}")
        time.sleep(0.1)
