"""One person speaking: blocks of any size at any rate go in, the same speech in another voice comes
out."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Unpack

import numpy as np
import torch
from numpy.typing import ArrayLike

from rtvc import checks
from rtvc.audio.samples import Samples
from rtvc.engine.backends.base import Backend
from rtvc.engine.streams.backlog import Backlog
from rtvc.engine.streams.block import check_block
from rtvc.engine.streams.chunker import Work
from rtvc.engine.streams.controls import Controls, StreamSettings
from rtvc.engine.streams.health import is_finite
from rtvc.errors import EngineError
from rtvc.voices.voice import Voice

PIECE_S = 1.0
"""Longer blocks are taken in pieces of this many seconds, so that memory does not grow with a
file."""
TOGETHER = 8
"""Chunks a step of a stream whose blocks hold several: more is hardly faster."""


class Session(Controls):
    """Converts one stream; its output does not depend on how the input was cut into blocks.

    Args:
        backend: what runs the steps.
        voice: the voice to speak with.
        together: chunks that one step may take where so many wait and the backend can: twice as
            fast, and the same but for the last bits of floats. One chunk a step gives the same bits
            however the input is cut.
        backlog: bounds the lag for callers that pass `now`; by default nothing is ever dropped.
        settings: sample_rate, output_rate, pitch, prosody, wet, gate: see `StreamSettings`.
    """

    def __init__(
        self,
        backend: Backend,
        voice: Voice,
        *,
        together: int = 1,
        backlog: Backlog | None = None,
        **settings: Unpack[StreamSettings],
    ) -> None:
        super().__init__(backend, voice, backlog=backlog, **settings)
        self.state = backend.initial(1)
        self.steps, self.together = 0, together
        self._entered = threading.Lock()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One thread at a time: two would take turns at the stream's state and lose audio between
        them.

        Raises:
            EngineError: another thread is inside.
        """
        if not self._entered.acquire(blocking=False):
            raise EngineError(
                "expected one thread at a time, got two in one stream: open one for each, or put a"
                " lock around it"
            )
        try:
            yield
        finally:
            self._entered.release()

    def push(
        self, block: ArrayLike, *, captured: float | None = None, now: float | None = None
    ) -> Samples:
        """A block (N,) of floats -> everything that is ready, (N',) float32 at the output rate.

        Args:
            block: mono samples in [-1, 1].
            captured: when the first sample was captured, in seconds; with `now`, stale audio is
                dropped by the backlog's rule.
            now: the present on the same clock.

        Raises:
            AudioError: for a block that is not mono, not floats, not finite or beyond 4; nothing of
                it was taken.
            EngineError: after `flush`, or while another thread is inside.
        """
        samples = check_block(block)
        captured, now = checks.moment(captured, "captured"), checks.moment(now, "now")
        with self._alone():
            if self.chunker.end is not None:
                raise EngineError(
                    "expected no block after `flush`, got one: call `reset` to begin another stream"
                )
            piece = max(1, int(PIECE_S * self.chunker.entry.rate_in))
            for start in range(0, len(samples), piece):
                when = None if captured is None else captured + start / self.chunker.entry.rate_in
                self.chunker.feed(samples[start : start + piece], when)
                self._run(now)
            return self.chunker.take()

    def flush(self) -> Samples:
        """The rest of the stream, as if silence followed: afterwards every input sample has its
        output."""
        with self._alone():
            self.chunker.finish()
            self._run(None)
            return self.chunker.take()

    def reset(self) -> None:
        """Another stream from the beginning, with the same voice and mix."""
        with self._alone():
            self.chunker.reset()
            self.state = self.backend.initial(1)

    def park(self) -> bytes:
        """The whole session as bytes; `resume` on an equal session goes on without a seam."""
        with self._alone():
            return self.to_bytes(self.state)

    def resume(self, data: bytes) -> None:
        """Goes on where `park` left off.

        Raises:
            EngineError: when the bytes are no session or one of another kind.
        """
        with self._alone():
            self.state = self.from_bytes(data)

    def _run(self, now: float | None) -> None:
        ahead: Work | None = None
        while (work := ahead or self.chunker.next(now)) is not None:
            self._follow()
            works, ahead = self._together(work, now)
            if len(works) == 1:
                self.chunker.accept(work, self._step(work))
                continue
            [y] = self._step(replace(work, x=np.concatenate([each.x for each in works])))
            for each, part in zip(works, y.reshape(len(works), -1), strict=True):
                self.chunker.accept(each, [part])

    def _together(self, first: Work, now: float | None) -> tuple[list[Work], Work | None]:
        """What can be one step with `first`, and what was taken after that and cannot."""
        works = [first]
        if not self.backend.stretches or len(first.voices) > 1:
            return works, None
        while self.chunker.follows and len(works) < self.together:
            after = self.chunker.next(now)
            if after is None or len(after.voices) > 1 or after.voices[0] is not first.voices[0]:
                return works, after
            works.append(after)
        return works, None

    def _follow(self) -> None:
        """Changes to a faster backend that has become ready; the state goes along."""
        while (better := self.backend.successor) is not None:
            self.state = better.layout.taken(self.state, self.backend.layout)
            self.backend = better

    def _step(self, work: Work) -> list[Samples]:
        """Steps one chunk for every voice of `work`; the first voice's state is the one that lives
        on."""
        rows, x = len(work.voices), torch.from_numpy(work.x)
        if rows == 1:
            y, self.state = self.backend.step(
                x.to(self.backend.device)[None, None], work.voices[0], self.state
            )
        else:
            y, states = self.backend.step(
                x.to(self.backend.device).expand(rows, 1, -1).contiguous(),
                torch.cat(work.voices),
                self.state.expand(rows, -1).contiguous(),
            )
            self.state = states[:1].clone()
        if not is_finite(self.state):
            self.state = self.backend.initial(1)
            self.resets += 1
        self.steps += 1
        return list(y[:, 0].cpu().numpy())
