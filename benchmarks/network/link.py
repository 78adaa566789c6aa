"""Two network namespaces and a bad line between them: packets are lost, delayed and overtaken.

The line is the kernel's own (`tc netem`) where it has one; otherwise two TUN devices with a process
between them that does the same to every packet. Either way the stacks at both ends are the
kernel's.
"""

import ctypes
import fcntl
import heapq
import os
import random
import select
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from rtvc.errors import DependencyError

ADDRESSES = ("10.77.0.1", "10.77.0.2")
"""Of the two ends."""
CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
"""Of Linux: /usr/include/linux/sched.h and if_tun.h."""
MTU = 1_500


@dataclass(frozen=True)
class Line:
    """What a line does to packets, in each direction.

    Attributes:
        loss: share of packets that are lost.
        delay_ms: that a packet takes on average.
        jitter_ms: by which it is earlier or later, evenly spread; packets overtake each other.
    """

    loss: float = 0.02
    delay_ms: float = 40.0
    jitter_ms: float = 30.0

    @property
    def netem(self) -> list[str]:
        """The same for `tc`."""
        delay = ["delay", f"{self.delay_ms:g}ms", f"{self.jitter_ms:g}ms"]
        return ["netem", *delay, "loss", f"{100 * self.loss:g}%"]


def ip(*arguments: str) -> None:
    """Runs `ip`.

    Raises:
        DependencyError: it failed, or is not there.
    """
    run("ip", *arguments)


def run(*command: str) -> None:
    """Runs a command of iproute2.

    Raises:
        DependencyError: it failed, or is not there.
    """
    if shutil.which(command[0]) is None:
        raise DependencyError(f"{command[0]} is not here: install the package iproute2")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        why = (done.stderr or done.stdout).strip()[:200]
        raise DependencyError(f"`{' '.join(command)}` failed ({why}): run this as root on Linux")


@contextmanager
def bad_line(line: Line, kind: str = "auto", seed: int = 0) -> Iterator[tuple[list[str], str]]:
    """Two namespaces with a bad line between them, for as long as the context lasts; gives their
    names, and what the line is made of: `netem` or `tun`.

    Args:
        line: what it does to packets.
        kind: what to make it of; `auto` takes the kernel's where it has one.
        seed: of the fate of packets, where it is ours.

    Raises:
        DependencyError: neither can be had here.
    """
    names = [f"rtvc-{os.getpid()}-{end}" for end in "ab"]
    with ExitStack() as stack:
        for name in names:
            ip("netns", "add", name)
            stack.callback(subprocess.run, ["ip", "netns", "del", name], check=False)
            ip("-n", name, "link", "set", "lo", "up")
        if kind in ("auto", "netem"):
            try:
                _veth(names, line)
                yield names, "netem"
                return
            except DependencyError:
                with suppress(DependencyError):
                    ip("-n", names[0], "link", "del", "line")
                if kind == "netem":
                    raise
        relay = _tun(names, line, seed)
        stack.callback(relay.wait)
        stack.callback(relay.terminate)
        yield names, "tun"


def _veth(names: list[str], line: Line) -> None:
    ends = [["name", "line", "netns", name] for name in names]
    ip("link", "add", *ends[0], "type", "veth", "peer", *ends[1])
    for name, address in zip(names, ADDRESSES, strict=True):
        ip("-n", name, "addr", "add", f"{address}/24", "dev", "line")
        ip("-n", name, "link", "set", "line", "up")
        run("tc", "-n", name, "qdisc", "add", "dev", "line", "root", *line.netem)


def _tun(names: list[str], line: Line, seed: int) -> "subprocess.Popen[str]":
    numbers = [str(value) for value in (line.loss, line.delay_ms, line.jitter_ms, seed)]
    command = [sys.executable, "-m", "rtvc.benchmarks.network.link", *names, *numbers]
    relay = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert relay.stdout is not None and relay.stderr is not None
    if not relay.stdout.readline():
        relay.wait()
        why = relay.stderr.read().strip().splitlines()[-1:] or ["it ended"]
        raise DependencyError(f"no TUN device can be had ({why[0]}): run this as root on Linux")
    try:
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "line")
            ip("-n", name, "link", "set", "line", "up")
    except BaseException:
        relay.terminate()
        relay.wait()
        raise
    return relay


def tun(namespace: str) -> int:
    """The descriptor of a new TUN device `line` in a namespace."""
    libc: Any = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{namespace}") as place:
        if libc.setns(place.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"line", IFF_TUN | IFF_NO_PI))
    return device


def relay(names: list[str], line: Line, seed: int) -> None:
    """Carries packets from either device to the other one, for as long as it lives."""
    devices = [tun(name) for name in names]
    fate, on_the_way, count = random.Random(seed), list[tuple[float, int, int, bytes]](), 0
    print("ready", flush=True)
    while True:
        now = time.monotonic()
        while on_the_way and on_the_way[0][0] <= now:
            _, _, device, packet = heapq.heappop(on_the_way)
            with suppress(OSError):  # the other end is not up yet, or reads too slowly
                os.write(device, packet)
        patience = max(0.0, on_the_way[0][0] - now) if on_the_way else None
        for device in select.select(devices, [], [], patience)[0]:
            packet = os.read(device, MTU)
            if fate.random() < line.loss:
                continue
            late = line.delay_ms + line.jitter_ms * fate.uniform(-1, 1)
            other = devices[device == devices[0]]
            count += 1
            heapq.heappush(on_the_way, (time.monotonic() + late / 1000, count, other, packet))


if __name__ == "__main__":
    loss, delay, jitter = (float(value) for value in sys.argv[3:6])
    relay(sys.argv[1:3], Line(loss, delay, jitter), int(sys.argv[6]))
