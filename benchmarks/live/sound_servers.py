"""Private, headless sound servers that speak PulseAudio's protocol: PulseAudio itself, and PipeWire
with its session manager and its PulseAudio face."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rtvc.errors import ConfigError, DependencyError


def haste() -> tuple[str, ...]:
    """What is put before a command so that sound comes before other work: real time, as sound
    servers of desktops are given it, where the system allows that, and else as nice as it allows
    (`nice` says so and goes on)."""
    if shutil.which("chrt") is not None:
        realtime = ("chrt", "--rr", "20")
        if not subprocess.run([*realtime, "true"], capture_output=True, check=False).returncode:
            return realtime
    return ("nice", "-n", "-11")


HASTE = haste()
CLIENTS = ("pactl", "paplay", "parec", "pacat")
PATIENCE_S = 20.0
"""How long a server may take to answer, on a busy machine."""
SERVERS = {
    "pulseaudio": ("pulseaudio",),
    "pipewire": ("dbus-daemon", "pipewire", "wireplumber", "pipewire-pulse", "pw-metadata"),
}
"""By server, the programs that it is made of."""
PACKAGES = {
    "pulseaudio": "pulseaudio pulseaudio-utils libportaudio2 libasound2-plugins",
    "pipewire": "dbus-daemon pipewire pipewire-pulse wireplumber pulseaudio-utils libportaudio2"
    " libasound2-plugins",
}
"""Debian's names of what holds them."""
SOCKETS = {"dbus-daemon": "bus", "pipewire": "pipewire-0"}
"""By program, what those after it connect to: they end if it is not there."""
QUANTUM = 128
"""Samples that PipeWire's graph works on at a time, the least that its PulseAudio face grants."""


def check_server(server: str) -> None:
    """Raises a `ConfigError` for a server that is none, a `DependencyError` where a program of it
    is missing."""
    if server not in SERVERS:
        raise ConfigError(f"expected the sound server {' or '.join(SERVERS)}, got {server!r}")
    for program in (*SERVERS[server], *CLIENTS):
        if shutil.which(program) is None:
            raise DependencyError(f"{program} is missing: apt-get install {PACKAGES[server]}")


def address(server: str, folder: Path) -> dict[str, str]:
    """Variables by which clients find a server that keeps its files in a folder."""
    socket = folder / ("socket" if server == "pulseaudio" else "native")
    return {
        "PULSE_SERVER": f"unix:{socket}",
        "PULSE_RUNTIME_PATH": str(folder),
        "PULSE_COOKIE": str(folder / "cookie"),
    } | ({"XDG_RUNTIME_DIR": str(folder)} if server == "pipewire" else {})


def commands(server: str, folder: Path) -> list[list[str]]:
    """What starts a server, one program after the other."""
    if server == "pipewire":
        bus = ["dbus-daemon", "--session", "--nofork", f"--address=unix:path={folder / 'bus'}"]
        return [bus, ["pipewire"], ["wireplumber"], ["pipewire-pulse"]]
    module = f"module-native-protocol-unix auth-anonymous=1 socket={folder / 'socket'}"
    options = "-n --daemonize=no --exit-idle-time=-1 --disable-shm=yes --use-pid-file=no"
    return [["pulseaudio", *options.split(), "--log-level=error", "-L", module]]


@contextmanager
def running(server: str, folder: Path) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """The processes of a server; they end with the block. Whether it answers is for the caller to
    see; what it said lies in `log` in the folder."""
    private = {
        **os.environ,
        **address(server, folder),
        "HOME": str(folder),
        "XDG_RUNTIME_DIR": str(folder),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_STATE_HOME": str(folder / "state"),
        "PULSE_STATE_PATH": str(folder),
        "DBUS_SESSION_BUS_ADDRESS": f"unix:path={folder / 'bus'}",
    }
    with ExitStack() as stack:
        log = stack.enter_context((folder / "log").open("wb"))
        programs = []
        for command in commands(server, folder):
            program = subprocess.Popen([*HASTE, *command], env=private, stdout=log, stderr=log)
            stack.callback(ended, program)
            programs.append(program)
            if socket := SOCKETS.get(command[0]):
                wait_for(folder / socket)
        yield programs


def hurry(programs: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Gives running programs real time again: PulseAudio puts its main thread, through which all
    sound goes, back to ordinary time when it starts."""
    if HASTE[0] != "chrt":
        return
    for program in programs:
        command = ["chrt", "--rr", "--pid", HASTE[-1], str(program.pid)]
        subprocess.run(command, capture_output=True, check=False)


def wait_for(socket: Path) -> None:
    """Returns when a socket is there, or after `PATIENCE_S`: whoever needs it will say."""
    deadline = time.monotonic() + PATIENCE_S
    while not socket.exists() and time.monotonic() < deadline:
        time.sleep(0.05)


def ended(program: "subprocess.Popen[bytes]") -> None:
    """Ends a program, gently if it lets itself."""
    program.terminate()
    try:
        program.wait(10)
    except subprocess.TimeoutExpired:
        program.kill()
