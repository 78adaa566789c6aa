"""A stream begins on the backend that is there at once; faster ones are built and timed beside it,
in a process of their own, and each takes over between two steps when it is ready."""

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rtvc.engine.backends.base import Backend
from rtvc.engine.cached import open_backend
from rtvc.engine.sent_model import packed
from rtvc.errors import RtvcError
from rtvc.models.streaming.interface import Converter

LOG = logging.getLogger("rtvc.engine")
"""Where it is said what took over, and what kept it from that."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "MKL_NUM_THREADS": "1"}
"""For the process that builds: the cores belong to those who speak."""


class Handover(threading.Thread):
    """Looks for backends that are faster than the first, until the best is found.

    Args:
        first: the backend that steps meanwhile.
        converter: its model, which is sent to the process that builds (`rtvc.engine.sent_model`).
        chunks: samples a step; for the first, engines take over here, those for the others are only
            kept for the next time.
        cache: folder of engines and measurements.
        candidates: names of backends to try.

    Attributes:
        prepare: called with a backend before it takes over, to warm it for what it is to do.
        current: the backend that would step now.
        problem: why no more is to be expected, if that is so.
        finished: set when the search is over.
    """

    def __init__(
        self,
        first: Backend,
        converter: Converter,
        chunks: Sequence[int],
        cache: Path,
        candidates: Sequence[str],
    ) -> None:
        super().__init__(name="rtvc-handover", daemon=True)
        self.current, self.converter, self.chunks = first, converter, list(chunks)
        self.cache, self.candidates = cache, list(candidates)
        self.prepare: Callable[[Backend], None] = warm
        self.problem, self.finished = "", threading.Event()
        self._child: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """The search; ends when the other process does."""
        try:
            order = {"chunks": self.chunks, "cache": str(self.cache), "candidates": self.candidates}
            model, weights = packed(self.converter)
            with builder(order | {"model": model}, weights) as self._child:
                assert self._child.stdout is not None
                for line in self._child.stdout:
                    self._heed(json.loads(line))
        except (RtvcError, OSError, ValueError) as error:
            self.problem = str(error)
        if self.problem:
            LOG.warning(
                "%s goes on, nothing faster can be had: %s", self.current.name, self.problem
            )
        self.finished.set()

    def awaited(self) -> Backend:
        """Starts, and waits for the first backend that takes over; the first one, if none does."""
        first = self.current
        self.start()
        while self.current is first and not self.finished.wait(0.1):
            pass
        return self.current

    def stop(self) -> None:
        """Ends the search; what was built so far is kept, and what steps goes on."""
        if (child := self._child) is not None and child.stdin is not None:
            with contextlib.suppress(OSError):
                child.stdin.close()  # what it waits for
        if self.is_alive():
            self.join(10)

    def _heed(self, message: dict[str, Any]) -> None:
        """What the other process says: a backend that is the best so far, or why there is none."""
        if "problem" in message:
            self.problem = str(message["problem"])
            return
        if message["chunk"] != self.current.chunk or message["backend"] == self.current.name:
            return
        better = open_backend(self.converter, message["backend"], self.current.chunk, self.cache)
        self.prepare(better)
        LOG.info("%s takes over from %s", better.name, self.current.name)
        self.current.successor, self.current = better, better


def warm(backend: Backend) -> None:
    """Steps one and two rows, as a stream and a change of voice do: first steps compile."""
    from rtvc.engine.streams.capacity import step_time

    for rows in (1, 2):
        step_time(backend, rows, 1)


@contextlib.contextmanager
def builder(order: dict[str, Any], weights: bytes) -> Iterator["subprocess.Popen[bytes]"]:
    """`rtvc.engine.builder` in a process of lower priority, with one thread. It ends with this one:
    the pipe that it reads from closes."""
    environment = os.environ | ONE_THREAD | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-m", "rtvc.engine.builder"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        creationflags=getattr(subprocess, "IDLE_PRIORITY_CLASS", 0),
    ) as child:
        assert child.stdin is not None
        try:
            line = json.dumps(order | {"bytes": len(weights)}).encode()
            child.stdin.write(line + b"\n" + weights)
            child.stdin.flush()
            yield child
        finally:
            with contextlib.suppress(OSError):
                child.stdin.close()
