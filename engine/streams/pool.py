"""Many sessions as rows of one batch, stepped together: join, leave and idle without recompiling
anything.

Every tick takes at most one chunk of each session that has one, most urgent first; sessions that
are behind get further rounds while time is left. States lie in one matrix (slots, S): a row is
gathered, stepped and put back. Sessions may be pushed and changed from other threads than the one
that ticks.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, Unpack

import numpy as np
import torch

from rtvc.audio.samples import Samples
from rtvc.engine.backends.base import Backend
from rtvc.engine.streams.backlog import Backlog
from rtvc.engine.streams.capacity import HEADROOM, Capacity, StepTimes, measure
from rtvc.engine.streams.chunker import Work
from rtvc.engine.streams.controls import StreamSettings
from rtvc.engine.streams.health import broken_rows
from rtvc.engine.streams.pool_session import PoolSession, Progress
from rtvc.errors import EngineError
from rtvc.voices.voice import Voice


class PoolFullError(EngineError):
    """The machine holds no more sessions; try again later or elsewhere."""


@dataclass(frozen=True)
class Piece:
    """What a session put out in one tick.

    Attributes:
        session: whose it is.
        samples: (N,) float32 at its output rate.
        captured: when the end of them was captured, in seconds of the pool's clock.
        done: whether its stream is complete with this; said once.
    """

    session: PoolSession
    samples: Samples
    captured: float
    done: bool


Job: TypeAlias = tuple[int, PoolSession, Work, float]
"""A slot, its session, a chunk of it, and when that should be converted, in seconds of the pool's
clock."""


class Pool:
    """Sessions that share a backend.

    Args:
        backend: what runs the steps.
        slots: the most sessions ever; admission may allow fewer.
        capacity: rows a tick that the machine holds; None measures it.
        clock: seconds, for deadlines and lag.

    Attributes:
        sessions: those that have a place, by slot.
        wake: set when a session has something to do.
        stepping: held by whoever steps or looks at states.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        slots: int = 64,
        capacity: Capacity | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.backend, self.clock = backend, clock
        self.capacity = measure(backend, most=slots) if capacity is None else capacity
        # The last row is scratch, for batches that are padded.
        self.states = backend.initial(slots + 1)
        self.sessions: dict[int, PoolSession] = {}
        self.tick_s = backend.chunk / backend.sample_rate
        self.times = StepTimes()
        self.wake, self.stepping = threading.Event(), threading.Lock()
        self._slots, self._free = slots, list(range(slots))
        self._registry = threading.Lock()

    def join(
        self,
        voice: Voice,
        *,
        max_lag: float | None = None,
        deadline: float | None = None,
        **settings: Unpack[StreamSettings],
    ) -> PoolSession:
        """A place for one more session.

        Args:
            voice: the voice to speak with.
            max_lag: seconds of age above which queued audio is dropped down to one chunk; None
                never drops.
            deadline: seconds after a chunk's last sample was captured by which it should be
                converted; by default two ticks.
            settings: sample_rate, output_rate, pitch, prosody, wet, gate: see `StreamSettings`.

        Raises:
            PoolFullError: when the measured capacity or the slots are used up.
            VoiceError: a voice that the model cannot use.
        """
        nominal = min(self.tick_s, max_lag or self.tick_s)
        slot = self._reserve()
        try:
            session = PoolSession(
                self.backend,
                self.states[slot : slot + 1],
                voice,
                clock=self.clock,
                changed=self.wake.set,
                deadline=2 * self.tick_s if deadline is None else deadline,
                backlog=Backlog(self.backend.sample_rate, nominal=nominal, limit=max_lag),
                **settings,
            )
        except BaseException:
            with self._registry:
                self._free.append(slot)
            raise
        with self._registry:
            # A faster backend may have taken over since the session was made.
            session.backend, session.state = self.backend, self.states[slot : slot + 1]
            self.sessions[slot] = session
        return session

    def _reserve(self) -> int:
        with self._registry:
            taken = self._slots - len(self._free)
            if taken >= self.capacity.rows or not self._free:
                raise PoolFullError(
                    f"{taken} sessions run and this machine was measured to hold"
                    f" {self.capacity.rows} at {1000 * self.tick_s:.1f} ms ticks: try again later,"
                    " or on another machine"
                )
            return self._free.pop()

    def restore(self, session: PoolSession, data: bytes) -> None:
        """Lets a session go on from what its `parked` returned, here or on another machine; its
        voice and controls come along.

        Raises:
            EngineError: the bytes are no session, or one of another kind.
        """
        with self.stepping:
            self._follow()
            session.unpark(data)

    def leave(self, session: PoolSession) -> None:
        """Gives a session's place back."""
        with self.stepping, self._registry:
            for slot, other in self.sessions.items():
                if other is session:
                    del self.sessions[slot]
                    self._free.append(slot)
                    break
            session.progress = Progress.LEFT

    def tick(self, now: float | None = None) -> list[Piece]:
        """Steps whoever has a chunk ready; returns what came of it.

        Args:
            now: the present on the pool's clock; by default the clock is asked.
        """
        with self.stepping:
            began = self.clock()
            present = began if now is None else now
            self._follow()
            with self._registry:
                sessions = dict(self.sessions)
            for session in sessions.values():
                session.apply_changes()
            while jobs := self._gather(sessions, present):
                self._step(jobs, present - began)
                if self.clock() - began > HEADROOM * self.tick_s:
                    # Who is behind waits for the next tick, so that it comes in time for everybody
                    break
            return [piece for one in sessions.values() if (piece := take(one)) is not None]

    def _follow(self) -> None:
        """Changes to a faster backend that has become ready; all states go along. Call it with
        `stepping` held."""
        while (better := self.backend.successor) is not None:
            states = better.layout.taken(self.states, self.backend.layout)
            with self._registry:
                self.backend, self.states = better, states
                for slot, session in self.sessions.items():
                    session.backend, session.state = better, states[slot : slot + 1]

    @property
    def load(self) -> float:
        """The share of a tick that steps take now (p95)."""
        return self.times.percentile(95) / self.tick_s

    def _gather(self, sessions: dict[int, PoolSession], now: float) -> list[Job]:
        """At most one chunk of every session, and when it should be converted; most urgent
        first."""
        jobs = list[Job]()
        for slot, session in sessions.items():
            if not session.chunker.ready:  # most are not, most of the time
                continue
            due = session.due()
            work = session.chunker.next(now)
            if work is not None:
                if due is None:
                    due = work.captured + self.tick_s + session.deadline
                jobs.append((slot, session, work, due))
        return sorted(jobs, key=lambda job: job[3])

    def _step(self, jobs: list[Job], shift: float) -> None:
        """Steps one round in batches as large as the backend takes; `shift` takes the pool's clock
        to the caller's present."""
        most = self.backend.batches[-1] if self.backend.batches else max(2, self.capacity.rows)
        while jobs:
            batch, rows = list[Job](), 0
            while jobs and (not batch or rows + len(jobs[0][2].voices) <= most):
                rows += len(jobs[0][2].voices)
                batch.append(jobs.pop(0))
            before = self.clock()
            outputs = self._run(batch, rows)
            after = self.clock()
            self.times.add(after - before)
            for (_, session, work, due), converted in zip(batch, outputs, strict=True):
                session.chunker.accept(work, converted)
                session.steps += 1
                session.late += after + shift > due

    def _run(self, batch: Sequence[Job], rows: int) -> list[list[Samples]]:
        """One step of the backend for some sessions; their states are gathered and put back."""
        # Padded to the next number of rows for which the backend was compiled: rows of the scratch
        # slot, whose output nobody reads.
        size = next((b for b in self.backend.batches if b >= rows), rows)
        slots = [slot for slot, _, work, _ in batch for _ in work.voices]
        x = np.zeros((size, 1, self.backend.chunk), np.float32)
        x[:rows, 0] = [work.x for _, _, work, _ in batch for _ in work.voices]
        voices = torch.cat([voice for _, _, work, _ in batch for voice in work.voices])
        if size > rows:
            slots += [self._slots] * (size - rows)
            voices = torch.cat([voices, voices[:1].expand(size - rows, -1)])
        index = torch.tensor(slots, device=self.backend.device)
        y, states = self.backend.step(
            torch.from_numpy(x).to(self.backend.device), voices, self.states[index]
        )
        # A voice that is faded out takes a second row; the state that lives on is the first one's.
        firsts = np.cumsum([0] + [len(work.voices) for _, _, work, _ in batch])[:-1].tolist()
        kept = states[firsts]
        for row in broken_rows(kept):
            kept[row] = self.backend.initial(1)[0]
            batch[row][1].resets += 1
        self.states[index[firsts]] = kept
        out = y[:, 0].cpu().numpy()
        return [
            list(out[first : first + len(work.voices)])
            for first, (_, _, work, _) in zip(firsts, batch, strict=True)
        ]


def take(session: PoolSession) -> Piece | None:
    """What a session has to give out, and moves it on; None for nothing. Call it with
    `Pool.stepping` held."""
    chunker = session.chunker
    if session.done or not (chunker.out or chunker.complete):
        return None
    samples = chunker.take()
    done = chunker.complete
    if done:
        session.progress = Progress.COMPLETE
    return Piece(session, samples, chunker.captured, done) if len(samples) or done else None
