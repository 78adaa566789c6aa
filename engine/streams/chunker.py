"""The half of a session that knows nothing of models: resamplers, chunks, gate, swap, dry path,
exact lengths.

`Session` steps one chunker at once; `Pool` gathers the work of many into one batch. A chunker hands
out `Work`, is given the converted chunk back, and keeps every count: N input samples give exactly
ceil(N * rate_out / rate_in) output samples, aligned with the input, less what was dropped and
declared.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rtvc.audio.samples import Samples
from rtvc.engine.streams.backlog import Backlog
from rtvc.engine.streams.gate import Gate
from rtvc.engine.streams.resampler import Resampler
from rtvc.errors import EngineError

FADE_S = 0.020
"""A swap of voices, a change of the dry/wet mix: done within this many seconds."""
GATE_FADE_S = 0.010
"""The gate's rise; its fall takes one chunk."""
COUNTS = ("wet", "wet_now", "was_open", "fed", "skip", "emitted", "delivered", "end", "captured")
"""Plain attributes of a `Chunker` that are parked as they are."""


@dataclass(frozen=True)
class Work:
    """One step to do.

    Attributes:
        x: (N,) the chunk at the converter's rate.
        voices: conditions (1, V): the current one first; a second one is the voice being faded out.
        gain: the gate's gain at the beginning and the end of the chunk; None when the output is to
            be thrown away.
        captured: when x[0] was captured, in seconds.
    """

    x: Samples
    voices: tuple[Tensor, ...]
    gain: tuple[float, float] | None
    captured: float


def ramp(start: float, stop: float, fade: int, length: int) -> Samples:
    """From `start` to `stop` over `fade` samples, then `stop`; (length,)."""
    fade = min(fade, length)
    shape = np.full(length, stop, np.float32)
    shape[:fade] = start + (stop - start) * (np.arange(fade, dtype=np.float32) + 1) / fade
    return shape


def finite(converted: Samples) -> Samples:
    """What a converter gave (N,), with silence in the place of what is not finite."""
    y = np.array(converted, np.float32)
    return y if np.isfinite(y.sum()) else np.nan_to_num(y, nan=0.0, posinf=0.0, neginf=0.0)


class Chunker:
    """One stream's samples on their way to and from the converter.

    Args:
        rate: of the converter, in Hz.
        chunk: samples a step at that rate.
        latency: of the converter, in samples at that rate.
        voice: condition (1, V) of the first voice.
        rate_in: of what comes, in Hz.
        rate_out: of what leaves, in Hz.
        wet: 1 gives the converted voice, 0 the input (at the converter's rate, latency-matched).
        gate: skips silence; None converts everything.
        backlog: what bounds the lag; by default nothing is ever dropped.
    """

    def __init__(
        self,
        rate: int,
        chunk: int,
        latency: int,
        voice: Tensor,
        *,
        rate_in: float,
        rate_out: float,
        wet: float = 1.0,
        gate: Gate | None = None,
        backlog: Backlog | None = None,
    ) -> None:
        self.rate, self.chunk, self.gate = rate, chunk, gate
        # The gate looks back by whole chunks, so that much later everything leaves.
        lookback = 0 if gate is None else round(gate.lookback * rate)
        self.held_chunks = -(-lookback // chunk)
        self.model_latency, self.latency = latency, latency + self.held_chunks * chunk
        self.entry, self.exit = Resampler(rate_in, rate), Resampler(rate, rate_out)
        self.backlog = Backlog(rate) if backlog is None else backlog
        self.voice, self.wet = voice, wet
        self.reset()

    def reset(self) -> None:
        """Back to before the first sample; voice and mix stay."""
        self.entry.reset()
        self.exit.reset()
        self.backlog.clear()
        if self.gate:
            self.gate.reset()
        self.faded_out: Tensor | None = None
        self.wet_now = self.wet
        self.was_open = self.gate is None
        self.fed = 0  # samples at the converter's rate that entered
        self.skip = self.latency  # output samples to throw away, so that output aligns with input
        self.emitted = 0  # output samples at the converter's rate
        self.delivered = 0  # samples given to the caller
        self.end: int | None = None  # value of `emitted` at which the stream is complete
        self.dry: Samples = np.zeros(self.latency, np.float32)
        self.held: deque[Samples] = deque([np.zeros(self.chunk, np.float32)] * self.held_chunks)
        self.asleep: deque[Samples] = deque(maxlen=-(-self.model_latency // self.chunk) + 1)
        self.todo: deque[Work] = deque()
        self.out: list[Samples] = []
        self.captured = 0.0  # when the end of what has left was captured, in seconds

    def swap(self, voice: Tensor) -> None:
        """Another voice (1, V) from the next chunk on; within `FADE_S` of audio the old one is
        gone."""
        if self.faded_out is None:
            self.faded_out = self.voice
        self.voice = voice

    def feed(self, block: Samples, captured: float | None = None) -> None:
        """block (N,) float32 at rate_in; `captured` is when its first sample was, in seconds."""
        if captured is not None:
            # The resampler's first output now is older by the input that it had kept waiting.
            kept = self.entry.received - self.entry.produced * self.entry.down / self.entry.up
            captured -= kept / self.entry.rate_in
        self._append(self.entry.push(block), captured)

    def finish(self) -> None:
        """No more input: what remains is made ready as work, with silence after it."""
        if self.end is not None:
            return
        self._append(self.entry.flush(), None)
        self.end = self.fed - self.backlog.dropped
        # The last sample leaves `latency` later, and steps take whole chunks.
        padding = self.latency + -(self.end + self.latency) % self.chunk
        self.backlog.append(np.zeros(padding, np.float32))

    def _append(self, samples: Samples, captured: float | None) -> None:
        self.fed += len(samples)
        self.backlog.append(samples, captured)

    def state(self) -> dict[str, Any]:
        """Arrays and numbers to go on from, between two steps.

        Raises:
            EngineError: while work is handed out or waits: step first.
        """
        if self.todo:
            raise EngineError(
                f"expected a session between two steps, got one with {len(self.todo)} still to do:"
                " step them before it is parked"
            )
        tree: dict[str, Any] = {name: getattr(self, name) for name in COUNTS}
        tree |= {
            "entry": self.entry.state(),
            "exit": self.exit.state(),
            "backlog": self.backlog.state(),
            "dry": self.dry,
            "voice": self.voice.cpu().numpy(),
            "out": np.concatenate([np.zeros(0, np.float32), *self.out]),
            "held": np.array(self.held, np.float32).reshape(-1, self.chunk),
            "asleep": np.array(self.asleep).reshape(-1, self.chunk),
        }
        if self.faded_out is not None:
            tree["faded_out"] = self.faded_out.cpu().numpy()
        if self.gate is not None:
            tree["gate"] = self.gate.state()
        return tree

    def restore(self, tree: dict[str, Any]) -> None:
        """Goes on from what `state` returned."""
        for name in COUNTS:
            setattr(self, name, tree[name])
        self.entry.restore(tree["entry"])
        self.exit.restore(tree["exit"])
        self.backlog.restore(tree["backlog"])
        self.dry, self.out = tree["dry"], [tree["out"]]
        self.voice = torch.from_numpy(tree["voice"]).to(self.voice.device)
        fading = tree.get("faded_out")
        self.faded_out = None if fading is None else torch.from_numpy(fading).to(self.voice.device)
        self.held = deque(tree["held"])
        self.asleep = deque(tree["asleep"], maxlen=self.asleep.maxlen)
        self.todo.clear()
        if self.gate is not None:
            self.gate.restore(tree["gate"])

    @property
    def ready(self) -> bool:
        """Whether `next` would find work or silence to hand on."""
        return bool(self.todo) or len(self.backlog) >= self.chunk

    def next(self, now: float | None = None) -> Work | None:
        """The next step to do, or None when input is short; silent chunks are answered on the way
        without a step."""
        while not self.todo and len(self.backlog) >= self.chunk:
            if (
                now is not None
                and self.end is None
                and self.backlog.trim(now)
                and len(self.backlog) < self.chunk
            ):
                break
            self._prepare()
        return self.todo.popleft() if self.todo else None

    @property
    def follows(self) -> bool:
        """Whether `next` has more work and answers nothing without a step on the way, so that it
        may be taken before what came from it last is accepted."""
        return bool(self.todo) or (self.was_open and len(self.backlog) >= self.chunk)

    def _prepare(self) -> None:
        """Turns one chunk of the backlog into work, or into silence."""
        captured = self.backlog.captured()
        x = self.backlog.take(self.chunk)
        if self.gate is None:
            self.todo.append(self._work(x, (1.0, 1.0), captured))
            return
        is_open = self.gate.decide(x)
        if self.held_chunks:
            self.held.append(x)
            x, captured = self.held.popleft(), captured - self.held_chunks * self.chunk / self.rate
        if is_open and not self.was_open:
            # What the converter slept through, heard again so that its state is that of a listener
            for sample in self.asleep:
                self.todo.append(Work(sample, (self.voice,), None, captured))
            self.asleep.clear()
            self.faded_out = None
        if is_open or self.was_open:
            self.todo.append(self._work(x, (float(self.was_open), float(is_open)), captured))
        else:
            self.asleep.append(x)
            self._emit(x, np.zeros(self.chunk, np.float32), captured)
        self.was_open = is_open

    def _work(self, x: Samples, gain: tuple[float, float], captured: float) -> Work:
        voices = (self.voice,) if self.faded_out is None else (self.voice, self.faded_out)
        self.faded_out = None
        return Work(x, voices, gain, captured)

    def accept(self, work: Work, converted: Sequence[Samples]) -> None:
        """The converter's output (N,) for every voice of `work`."""
        if work.gain is None:
            return
        y = finite(converted[0])
        if len(converted) > 1:
            share = ramp(0.0, 1.0, int(FADE_S * self.rate), self.chunk)
            y = share * y + (1 - share) * finite(converted[1])
        if work.gain != (1.0, 1.0):
            rise = work.gain[1] > work.gain[0]
            y *= ramp(*work.gain, int(GATE_FADE_S * self.rate) if rise else self.chunk, self.chunk)
        self._emit(work.x, y, work.captured)

    def _emit(self, x: Samples, y: Samples, captured: float) -> None:
        """Mixes in the dry path, cuts to the exact length, and resamples to the outer rate.

        Args:
            x: (N,) the chunk that entered.
            y: (N,) what the converter made of it, which is the input of `latency` samples ago.
            captured: when x[0] was captured, in seconds.
        """
        # `self.dry` holds the last `latency` samples of the input, so that the first chunk of what
        # follows is the input which y answers: dry and wet can be mixed sample by sample.
        dry = np.concatenate([self.dry, x])
        self.dry = dry[self.chunk :]
        if self.wet_now != 1.0 or self.wet != 1.0:
            share = ramp(self.wet_now, self.wet, int(FADE_S * self.rate), self.chunk)
            y = share * y + (1 - share) * dry[: self.chunk]
            self.wet_now = self.wet
        # The first `latency` samples answer the time before the first input: they do not leave.
        skip = min(self.skip, len(y))
        self.skip -= skip
        y = y[skip:]
        if self.end is not None:  # what answers the padding of `finish` does not leave either
            y = y[: max(0, self.end - self.emitted)]
        # y ends where x ended `model_latency` samples ago; the outer resampler holds half of its
        # filter back. (x is late by the gate's lookback already, and `captured` with it.)
        self.captured = captured + (self.chunk - self.model_latency - self.exit.half) / self.rate
        self.emitted += len(y)
        self.out.append(self.exit.push(y))

    def take(self) -> Samples:
        """Everything that is ready to leave, (N',) at rate_out, in [-1, 1].

        The converter's output keeps within that already; resampling it can swing a little beyond,
        and the dry path is as loud as the input, so both are cut here.
        """
        if self.complete and self.exit.produced < self.exit.length(self.emitted):
            self.out.append(self.exit.flush())
        y = np.concatenate(self.out) if self.out else np.zeros(0, np.float32)
        self.out.clear()
        if self.complete:
            y = y[: max(0, self.total - self.delivered)]
        self.delivered += len(y)
        return np.clip(y, -1, 1, out=y) if len(y) else y

    @property
    def complete(self) -> bool:
        """Whether the stream was finished and all of it has been converted."""
        return self.end is not None and self.emitted >= self.end

    @property
    def total(self) -> int:
        """Output samples that the input so far amounts to, declared drops deducted."""
        # ceil(N rate_out / rate_in), less what the dropped samples would have come to on their way
        # through the outer resampler.
        undropped = -(-self.entry.received * self.exit.rate_out // self.entry.rate_in)
        lost = self.exit.length(self.fed) - self.exit.length(self.fed - self.backlog.dropped)
        return undropped - lost
