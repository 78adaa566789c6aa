"""The sound cards of a live conversion: opened together, watched, and opened again when one that
was lost comes back."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from rtvc.clients.live.audio_streams import Callback, Stream
from rtvc.clients.live.devices import pick, refresh
from rtvc.errors import DeviceError

RETRY_S = 1.0
"""How often a lost device is looked for."""

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
    """The open devices of one conversion.

    Args:
        routes: what to open.
        block_ms: milliseconds a block.
        opener: opens a stream.

    Attributes:
        state: whether all of them are open.
        losses: times that one was lost.
        problem: why one is lost.
    """

    def __init__(self, routes: Sequence[Route], block_ms: float, opener: Opener) -> None:
        self.routes, self.block_ms, self.opener = tuple(routes), block_ms, opener
        self.state, self.losses, self.problem = State.STARTING, 0, ""
        self._streams: list[Stream] = []
        self._closed_xruns = 0
        self._tried = 0.0

    def open(self) -> None:
        """Opens all of them.

        Raises:
            DeviceError: one is not there, or cannot be opened so; then none stays open.
        """
        try:
            for route in self.routes:
                block = round(self.block_ms / 1000 * route.rate)
                stream = self.opener(
                    pick(route.device, route.kind),
                    route.callback,
                    rate=route.rate,
                    block=block,
                    incoming=route.kind == "input",
                )
                self._streams.append(stream)
        except BaseException:
            self._close_streams()
            raise
        self.state, self.problem = State.RUNNING, ""

    def supervise(self) -> None:
        """Call it a few times a second: notices a lost device and takes it back when it returns."""
        if self.state is State.RUNNING and not all(stream.alive for stream in self._streams):
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
        self._close_streams()
        self.state = State.STOPPED

    @property
    def xruns(self) -> int:
        """Buffers that any of them had too late or too full so far."""
        return self._closed_xruns + sum(stream.xruns for stream in self._streams)

    def _close_streams(self) -> None:
        for stream in self._streams:
            self._closed_xruns += stream.xruns
            stream.stop()
        self._streams.clear()
