"""The sound cards of a live conversion: opened together, watched, and opened again when one that
was lost comes back."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal, TypeAlias

from rtvc.clients.live.devices import pick, refresh
from rtvc.clients.sound.heartbeat import Callback, Stream
from rtvc.errors import DeviceError

RETRY_S = 1.0
"""How often a lost device is looked for."""

Role: TypeAlias = Literal["input", "output", "monitor"]
Opener = Callable[..., Stream]
"""Opens a stream as the classes of `STREAMS` do: (device, callback, *, rate, block, incoming)."""


class State(StrEnum):
    """What a live conversion is doing."""

    STARTING = "starting"
    RUNNING = "running"
    LOST = "lost"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Route:
    """One device and the callback that serves it.

    Attributes:
        device: index, name or part of it; None for the default.
        kind: its direction.
        rate: of the samples, in Hz.
        callback: takes or fills a block, as of `audio_streams`.
    """

    device: str | None
    kind: Literal["input", "output"]
    rate: int
    callback: Callback


class Devices:
    """The open devices of one conversion; safe to use from several threads.

    Args:
        routes: what to open.
        block_ms: milliseconds a block.
        opener: opens a stream.

    Attributes:
        state: whether all of them are open.
        losses: times that one was lost.
        problem: why one is lost.
    """

    def __init__(self, routes: Mapping[Role, Route], block_ms: float, opener: Opener) -> None:
        self.routes, self.block_ms, self.opener = dict(routes), block_ms, opener
        self.state, self.losses, self.problem = State.STARTING, 0, ""
        self._streams: dict[Role, Stream] = {}
        self._lock = threading.RLock()
        self._closed_xruns = 0
        self._tried = 0.0

    def open(self) -> None:
        """Opens all of them.

        Raises:
            DeviceError: one is not there, or cannot be opened so; then none stays open.
        """
        with self._lock:
            try:
                for role, route in self.routes.items():
                    self._streams[role] = self._opened(route)
            except BaseException:
                self._close_streams()
                raise
            self.state, self.problem = State.RUNNING, ""

    def switch(self, role: Role, device: str | None, route: Route | None = None) -> None:
        """Takes another device while the others go on.

        Args:
            role: of the device.
            device: index, name or part of it; None for the default.
            route: of a role that has none yet.

        Raises:
            DeviceError: there is none such, or it cannot be opened: the old one is taken back.
        """
        with self._lock:
            before = self.routes.get(role)
            chosen = replace(before, device=device) if before is not None else route
            assert chosen is not None
            try:
                pick(chosen.device, chosen.kind)
            except DeviceError:  # it may have been plugged in since PortAudio looked
                self._look_again()
                pick(chosen.device, chosen.kind)
            self._close(role)
            try:
                self._streams[role] = self._opened(chosen)
            except DeviceError:
                if before is not None and self.state is State.RUNNING:
                    self._streams[role] = self._opened(before)
                raise
            self.routes[role] = chosen

    def leave(self, role: Role) -> None:
        """Closes a device that is wanted no more."""
        with self._lock:
            self._close(role)
            self.routes.pop(role, None)

    def supervise(self) -> None:
        """Call it a few times a second: notices a lost device and takes it back when it returns."""
        with self._lock:
            alive = all(stream.alive for stream in self._streams.values())
            if self.state is State.RUNNING and not alive:
                self.state, self.problem = State.LOST, "an audio device stopped"
                self.losses += 1
                self._close_streams()
            if self.state is State.LOST and time.monotonic() - self._tried > RETRY_S:
                self._tried = time.monotonic()
                try:
                    refresh()
                    self.open()
                except DeviceError as error:
                    self.problem = str(error)

    def close(self) -> None:
        """Closes all of them."""
        with self._lock:
            self._close_streams()
            self.state = State.STOPPED

    @property
    def xruns(self) -> int:
        """Buffers that any of them had too late or too full so far."""
        return self._closed_xruns + sum(stream.xruns for stream in list(self._streams.values()))

    def held(self, role: Role) -> float:
        """Seconds that a device holds audio, as it says itself; 0 while it is not open."""
        stream = self._streams.get(role)
        return 0.0 if stream is None else stream.held

    def _opened(self, route: Route) -> Stream:
        return self.opener(
            pick(route.device, route.kind),
            route.callback,
            rate=route.rate,
            block=round(self.block_ms / 1000 * route.rate),
            incoming=route.kind == "input",
        )

    def _look_again(self) -> None:
        """PortAudio looks for devices only while none is open."""
        self._close_streams()
        refresh()
        self.open()

    def _close(self, role: Role) -> None:
        stream = self._streams.pop(role, None)
        if stream is not None:
            self._closed_xruns += stream.xruns
            stream.stop()

    def _close_streams(self) -> None:
        for role in list(self._streams):
            self._close(role)
