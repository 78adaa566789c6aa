"""Many sessions as rows of one batch, stepped together: join, leave and idle without recompiling
anything.

Every tick takes at most one chunk of each member that has one, most urgent first; members that are
behind get further rounds while time is left. States lie in one matrix (slots, S): a row is
gathered, stepped and put back. `push`, `pull` and the controls may be called from other threads
than the one that ticks.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from rtvc import checks
from rtvc.engine.backends.base import Backend
from rtvc.engine.streams.backlog import Backlog
from rtvc.engine.streams.capacity import HEADROOM, Capacity, StepTimes, measure
from rtvc.engine.streams.chunker import Line, Work
from rtvc.engine.streams.gate import Gate
from rtvc.engine.streams.health import broken_rows
from rtvc.engine.streams.session import Controls, check_block
from rtvc.errors import EngineError
from rtvc.models.streaming.interface import Styled

Samples = NDArray[np.float32]

QUEUE_S = 30.0
"""Seconds of output that wait for `pull` before the oldest is let go."""


class PoolFullError(EngineError):
    """The machine holds no more sessions; try again later or elsewhere."""


class Member(Controls):
    """One session of a pool: `push` and `pull` return at once, `Pool.tick` does the work
    between."""

    def __init__(
        self,
        pool: "Pool",
        slot: int,
        voice: Styled,
        line: Line,
        *,
        deadline: float,
        pitch: float,
        prosody: float,
    ) -> None:
        super().__init__(pool.backend, voice, pitch=pitch, prosody=prosody)
        self.pool, self.slot, self.deadline = pool, slot, deadline
        line.voice = self.condition()
        self.line = line
        self.late = self.steps = 0
        self.done = self.gone = False
        self._arrived: deque[tuple[int, float]] = (
            deque()
        )  # where a block ended in the line's backlog, and when it came
        self._inbox: deque[Callable[[], None]] = deque([self._start])
        self._outbox: deque[Samples] = deque()
        self._clock_end = 0.0

    def apply(self, change: Callable[[], None]) -> None:
        """Queues a change of the line for the next tick."""
        self._inbox.append(change)
        self.pool.wake.set()

    def push(
        self, block: ArrayLike, *, captured: float | None = None, arrived: float | None = None
    ) -> None:
        """A block of mono floats.

        Args:
            block: (N,) samples.
            captured: when the first was, on the pool's clock; by default the block has just ended.
            arrived: when the block came, on the pool's clock. Where it is said, urgency and
                lateness are judged by it and not by `captured`, which strangers say: nobody is
                served before others, or counted as late, for what is claimed.

        Raises:
            AudioError: for a block that is not mono, not floats or not finite.
            EngineError: after `leave`.
        """
        if self.gone:
            raise EngineError("a block came for a session that has left the pool: join again")
        samples, captured = check_block(block).copy(), checks.moment(captured, "captured")
        if captured is None:
            duration = len(samples) / self.line.entry.rate_in
            captured = max(self._clock_end, self.pool.clock() - duration)
            self._clock_end = captured + duration
        self.apply(lambda: self._feed(samples, captured, arrived))

    def _feed(self, samples: Samples, captured: float, arrived: float | None) -> None:
        self.line.feed(samples, captured)
        if arrived is not None:
            self._arrived.append((self.line.backlog.taken + len(self.line.backlog), arrived))

    def due(self) -> float | None:
        """When the next chunk of the backlog had come in full, plus the deadline; None when nobody
        says."""
        end = self.line.backlog.taken + self.line.chunk
        while len(self._arrived) > 1 and self._arrived[0][0] < end:
            self._arrived.popleft()
        return self._arrived[0][1] + self.deadline if self._arrived else None

    @property
    def waits(self) -> bool:
        """Whether output waits for `pull`."""
        return bool(self._outbox)

    def pull(self) -> Samples:
        """All output that is ready, (N,) float32."""
        parts = []
        while self._outbox:
            parts.append(self._outbox.popleft())
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def finish(self) -> None:
        """No more input: the rest comes with the next ticks, then `done` is true."""
        self.apply(self.line.finish)

    def reset(self) -> None:
        """Another stream from the beginning, with the same voice."""
        self.apply(self._start)

    def leave(self) -> None:
        """Gives the place back; what was not pulled stays readable."""
        self.pool.leave(self)

    def park(self) -> bytes:
        """The whole session as bytes, for `Pool.resume` here or on another machine; waits for a
        tick that is under way."""
        with self.pool.stepping:
            self.settle()
            return self.parcel(self.pool.states[self.slot : self.slot + 1])

    def settle(self) -> None:
        """Carries out what was asked since the last tick; the pool calls it with `stepping`
        held."""
        while self._inbox:
            self._inbox.popleft()()

    def collect(self) -> None:
        """Moves what the line has ready to where `pull` finds it; the pool calls it with `stepping`
        held."""
        if not self.line.out and self.line.end is None:
            return
        samples = self.line.take()
        if len(samples):
            self._outbox.append(samples)
            while sum(map(len, self._outbox)) > QUEUE_S * self.line.exit.rate_out:
                self._outbox.popleft()
        self.done = self.line.end is not None and self.line.emitted >= self.line.end

    def _start(self) -> None:
        self.line.reset()
        self._arrived.clear()
        self.done = False
        self.pool.states[self.slot] = self.backend.initial(1)[0]


Turn: TypeAlias = tuple[Member, Work, float]
"""A member, a chunk of it, and when that should be converted, in seconds of the pool's clock."""


class Pool:
    """Sessions that share a backend.

    Args:
        backend: what runs the steps.
        slots: the most sessions ever; admission may allow fewer.
        capacity: rows a tick that the machine holds; None measures it.
        clock: seconds, for deadlines and lag.
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
        self.states = backend.initial(
            slots + 1
        )  # the last row is scratch, for batches that are padded
        self.members: dict[int, Member] = {}
        self.free = list(range(slots))
        self.tick_s = backend.chunk / backend.sample_rate
        self.times = StepTimes()
        self.stepping, self.registry, self.wake = (
            threading.Lock(),
            threading.Lock(),
            threading.Event(),
        )

    def join(
        self,
        voice: Styled,
        *,
        sample_rate: float = 24_000,
        output_rate: float | None = None,
        pitch: float = 0.0,
        prosody: float = 1.0,
        gate: Gate | None = None,
        max_lag: float | None = None,
        deadline: float | None = None,
    ) -> Member:
        """A place for one more session.

        Args:
            voice: the voice to speak with.
            sample_rate: of the blocks that come, in Hz.
            output_rate: of what leaves, in Hz; by default the same.
            pitch: semitones added to the pitch.
            prosody: 0 keeps the speaker's own register and range, 1 takes the voice's.
            gate: skips silence.
            max_lag: seconds of age above which queued audio is dropped down to one chunk; None
                never drops.
            deadline: seconds after a chunk's last sample was captured by which it should be
                converted; by default two ticks.

        Raises:
            PoolFullError: when the measured capacity or the slots are used up.
        """
        rate, chunk = self.backend.sample_rate, self.backend.chunk
        backlog = Backlog(rate, nominal=min(self.tick_s, max_lag or self.tick_s), limit=max_lag)
        line = Line(
            rate,
            chunk,
            self.backend.latency,
            self.backend.condition(
                checks.voice(voice), pitch=checks.pitch(pitch), prosody=checks.prosody(prosody)
            ),
            rate_in=sample_rate,
            rate_out=sample_rate if output_rate is None else output_rate,
            gate=gate,
            backlog=backlog,
        )
        with self.registry:
            if len(self.members) >= self.capacity.rows or not self.free:
                raise PoolFullError(
                    f"{len(self.members)} sessions run and this machine was measured to hold"
                    f" {self.capacity.rows} at {1000 * self.tick_s:.1f} ms ticks: try again later,"
                    " or on another machine"
                )
            slot = self.free.pop()
            limit = 2 * self.tick_s if deadline is None else deadline
            member = self.members[slot] = Member(
                self, slot, voice, line, deadline=limit, pitch=pitch, prosody=prosody
            )
        return member

    def resume(self, data: bytes, voice: Styled, **settings: object) -> Member:
        """A place for a session that was parked; `voice` and settings as for `join`, the parked
        voice and controls win."""
        member = self.join(voice, **settings)  # type: ignore[arg-type]
        with self.stepping:
            self._follow()
            member.settle()
            try:
                self.states[member.slot] = member.unparcel(data)[0]
            except EngineError:
                self._remove(member)
                raise
        return member

    def leave(self, member: Member) -> None:
        """Gives a member's place back."""
        with self.stepping:
            self._remove(member)

    def _remove(self, member: Member) -> None:
        with self.registry:
            if self.members.pop(member.slot, None) is member:
                self.free.append(member.slot)
            member.gone = True

    def tick(self, now: float | None = None) -> int:
        """Steps whoever has a chunk ready; returns the number of rows stepped.

        Args:
            now: the present on the pool's clock; by default the clock is asked.
        """
        with self.stepping:
            began = self.clock()
            present = began if now is None else now
            self._follow()
            with self.registry:
                members = list(self.members.values())
            for member in members:
                member.settle()
            rows = 0
            while turn := self._gather(members, present):
                rows += sum(len(work.voices) for _, work, _ in turn)
                self._step(turn, present - began)
                if self.clock() - began > HEADROOM * self.tick_s:
                    # Who is behind waits for the next tick, so that it comes in time for everybody
                    break
            for member in members:
                member.collect()
            return rows

    def serve(
        self, stop: threading.Event, done: Callable[[Sequence[Member]], None] | None = None
    ) -> None:
        """Ticks whenever something was pushed, until `stop` is set; `done` hears the members after
        every tick."""
        while not stop.is_set():
            self.wake.wait(self.tick_s)
            self.wake.clear()
            if self.tick() and done is not None:
                done(list(self.members.values()))

    def _follow(self) -> None:
        """Changes to a faster backend that has become ready; all states go along."""
        while (better := self.backend.successor) is not None:
            self.states = better.layout.taken(self.states, self.backend.layout)
            self.backend = better
            with self.registry:
                for member in self.members.values():
                    member.backend = better

    @property
    def load(self) -> float:
        """The share of a tick that steps take now (p95)."""
        return self.times.percentile(95) / self.tick_s

    def _gather(self, members: Sequence[Member], now: float) -> list[Turn]:
        """At most one chunk of every member, and when it should be converted; most urgent first."""
        turns = []
        for member in members:
            if not member.line.ready:  # most are not, most of the time
                continue
            due = member.due()
            work = member.line.next(now)
            if work is not None:
                turns.append(
                    (
                        member,
                        work,
                        work.captured + self.tick_s + member.deadline if due is None else due,
                    )
                )
        return sorted(turns, key=lambda turn: turn[2])

    def _step(self, turn: list[Turn], shift: float) -> None:
        """Steps one round in batches as large as the backend takes; `shift` takes the pool's clock
        to the caller's present."""
        most = self.backend.batches[-1] if self.backend.batches else max(2, self.capacity.rows)
        while turn:
            batch, rows = list[Turn](), 0
            while turn and (not batch or rows + len(turn[0][1].voices) <= most):
                rows += len(turn[0][1].voices)
                batch.append(turn.pop(0))
            before = self.clock()
            outputs = self._run(batch, rows)
            after = self.clock()
            self.times.add(after - before)
            for (member, work, due), converted in zip(batch, outputs, strict=True):
                member.line.accept(work, converted)
                member.steps += 1
                member.late += after + shift > due

    def _run(self, batch: Sequence[Turn], rows: int) -> list[list[Samples]]:
        """One step of the backend for some members; their states are gathered and put back."""
        size = next((b for b in self.backend.batches if b >= rows), rows)
        slots = [member.slot for member, work, _ in batch for _ in work.voices]
        x = np.zeros((size, 1, self.backend.chunk), np.float32)
        x[:rows, 0] = [work.x for _, work, _ in batch for _ in work.voices]
        voices = torch.cat([voice for _, work, _ in batch for voice in work.voices])
        if size > rows:
            slots += [len(self.states) - 1] * (size - rows)
            voices = torch.cat([voices, voices[:1].expand(size - rows, -1)])
        index = torch.tensor(slots, device=self.backend.device)
        y, states = self.backend.step(
            torch.from_numpy(x).to(self.backend.device), voices, self.states[index]
        )
        firsts = np.cumsum([0] + [len(work.voices) for _, work, _ in batch])[:-1].tolist()
        kept = states[firsts]
        for row in broken_rows(kept):
            kept[row] = self.backend.initial(1)[0]
            batch[row][0].resets += 1
        self.states[index[firsts]] = kept
        out = y[:, 0].cpu().numpy()
        return [
            list(out[first : first + len(work.voices)])
            for first, (_, work, _) in zip(firsts, batch, strict=True)
        ]
