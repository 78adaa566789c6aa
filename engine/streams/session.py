"""One person speaking: blocks of any size at any rate go in, the same speech in another voice comes
out."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from rtvc import checks
from rtvc.audio.check import LOUDEST
from rtvc.engine.backends.base import Backend
from rtvc.engine.streams.backlog import Backlog
from rtvc.engine.streams.chunker import Line, Work
from rtvc.engine.streams.gate import Gate
from rtvc.engine.streams.health import is_finite
from rtvc.engine.streams.state_bytes import from_bytes, to_bytes
from rtvc.errors import AudioError, EngineError, VoiceError
from rtvc.models.streaming.interface import Styled
from rtvc.voices.voice import mixed_fine

Samples = NDArray[np.float32]

PIECE_S = 1.0
"""Longer blocks are taken in pieces of this many seconds, so that memory does not grow with a
file."""
TOGETHER = 8
"""Chunks a step of a stream whose blocks hold several: more is hardly faster."""


@dataclass
class Style:
    """What `mix` makes of several voices: two style vectors, (128,) each, and what fitting added,
    (F,)."""

    acoustic: Tensor
    prosodic: Tensor
    fine: Tensor | None = None


def blend(weights: Mapping[Styled, float]) -> Style:
    """The weighted mean of several voices' style vectors; weights need not add up to one.

    Raises:
        VoiceError: without voices, for weights that are not finite, negative or all zero, or for
            voices of different style spaces.
    """
    shares = checks.shares(weights)
    spaces = {
        str(space) for voice in weights if (space := getattr(voice, "space", None)) is not None
    }
    if len(spaces) > 1:
        raise VoiceError(
            f"voices of the style spaces {', '.join(sorted(spaces))} came, one space was wanted:"
            " make them with one model"
        )
    return Style(
        torch.stack([share * voice.acoustic for voice, share in shares]).sum(0),
        torch.stack([share * voice.prosodic for voice, share in shares]).sum(0),
        mixed_fine(shares),
    )


def check_block(block: ArrayLike) -> Samples:
    """A block of mono samples as (N,) float32.

    Raises:
        AudioError: for another shape, whole numbers, or values that are not finite or were never
            scaled to [-1, 1].
    """
    try:
        samples = np.asarray(block.detach().cpu() if isinstance(block, Tensor) else block)
    except (TypeError, ValueError, RuntimeError) as error:
        raise AudioError(
            f"{checks.what(block)} came as a block, (N,) mono samples were wanted: pass an array of"
            " floats"
        ) from error
    if samples.ndim != 1:
        raise AudioError(
            f"a block of shape {samples.shape} came, (N,) mono samples were wanted: mix the"
            " channels down first"
        )
    if samples.dtype.kind != "f":
        raise AudioError(
            f"a block of {samples.dtype} came, floats in [-1, 1] were wanted: divide integers by"
            " their full scale"
        )
    peak = np.abs(samples).max(initial=0.0)
    if not np.isfinite(peak):
        raise AudioError(
            "a block with infinite or undefined samples came: find where the capture went wrong"
        )
    if peak > LOUDEST:
        raise AudioError(
            f"a block that reaches {peak:.6g} came, samples from -1 to 1 were wanted: divide 16-bit"
            " integers by 32768"
        )
    return samples.astype(np.float32, copy=False)


class Controls:
    """Voice, pitch and mix of one stream; `Session` and the pool's sessions share it."""

    def __init__(self, backend: Backend, voice: Styled, *, pitch: float, prosody: float) -> None:
        self.backend, self._voice = backend, checks.voice(voice)
        self._pitch, self._prosody = checks.pitch(pitch), checks.prosody(prosody)
        self.line: Line
        self.resets = 0
        """How often the converter's state was no longer finite and began anew: 0, unless a model or
        a machine is at fault."""

    def apply(self, change: Callable[[], None]) -> None:
        """Carries out a change of the line: at once here, between two steps in a pool."""
        change()

    def _turn(self, voice: Styled, pitch: float, prosody: float) -> None:
        """Takes all three over, or none: what is refused on the way leaves the old ones."""
        condition = self.backend.condition(voice, pitch=pitch, prosody=prosody)
        self._voice, self._pitch, self._prosody = voice, pitch, prosody
        self.apply(lambda: self.line.swap(condition))

    def condition(self) -> Tensor:
        """The condition (1, V) of the present voice, pitch and prosody."""
        return self.backend.condition(self._voice, pitch=self._pitch, prosody=self._prosody)

    def swap(self, voice: Styled) -> None:
        """Another voice, click-free within 20 ms of audio.

        Raises:
            VoiceError: something that is none, or that the model cannot use; the old one speaks on.
        """
        self._turn(checks.voice(voice), self._pitch, self._prosody)

    def mix(self, weights: Mapping[Styled, float]) -> None:
        """A mix of several voices by weight, click-free within 20 ms of audio.

        Raises:
            VoiceError: as `blend`; the old voice speaks on.
        """
        self.swap(blend(weights))

    @property
    def voice(self) -> Styled:
        """The one that speaks: what was swapped in last, or what `mix` made."""
        found: Styled = self._voice
        return found

    @property
    def pitch(self) -> float:
        """Semitones added to the pitch, -24 to 24; another value raises an `AudioError` and leaves
        the old one."""
        return self._pitch

    @pitch.setter
    def pitch(self, semitones: float) -> None:
        self._turn(self._voice, checks.pitch(semitones), self._prosody)

    @property
    def prosody(self) -> float:
        """0 keeps the speaker's own register and range, 1 takes the voice's; another value raises
        an `AudioError`."""
        return self._prosody

    @prosody.setter
    def prosody(self, share: float) -> None:
        self._turn(self._voice, self._pitch, checks.prosody(share))

    @property
    def wet(self) -> float:
        """1 is the converted voice, 0 the input as it was, equally late; changes are faded over 20
        ms."""
        return self.line.wet

    @wet.setter
    def wet(self, share: float) -> None:
        value = checks.wet(share)
        self.apply(lambda: setattr(self.line, "wet", value))

    @property
    def latency(self) -> float:
        """Seconds by which output lags input when every step is instant: model, edges and one
        chunk."""
        line = self.line
        return line.entry.delay + (line.latency + line.chunk) / line.rate + line.exit.delay

    def fingerprint(self) -> dict[str, Any]:
        """What must be equal for parked bytes to be resumed."""
        line, backend = self.line, self.backend
        return {
            "rates": f"{line.entry.rate_in}/{line.rate}/{line.exit.rate_out}",
            "chunk": backend.chunk,
            "latency": line.latency,
            "state": "/".join(backend.layout.names),
            "gate": line.gate is not None,
        }

    def parcel(self, state: Tensor) -> bytes:
        """The whole stream as bytes; state (1, S) is the converter's."""
        styles = {
            "acoustic": self._voice.acoustic.numpy(),
            "prosodic": self._voice.prosodic.numpy(),
        }
        fine: Tensor | None = getattr(self._voice, "fine", None)
        if fine is not None:
            styles["fine"] = fine.numpy()
        controls = {"pitch": self._pitch, "prosody": self._prosody, **styles}
        return to_bytes(
            {
                "for": self.fingerprint(),
                "line": self.line.state(),
                "state": state.cpu().numpy(),
                "controls": controls,
            }
        )

    def unparcel(self, data: bytes) -> Tensor:
        """Goes on from parked bytes; returns the converter's state (1, S).

        Raises:
            EngineError: when they are no session, one of another kind, or one whose state is not
                finite.
            AudioError: for controls that no session has.
        """
        tree = from_bytes(data)
        if tree.get("for") != self.fingerprint():
            raise EngineError(
                f"a session parked as {tree.get('for')} came, {self.fingerprint()} was wanted:"
                " resume it with equal settings"
            )
        try:
            controls, state = tree["controls"], torch.from_numpy(tree["state"])
            fine = torch.from_numpy(controls["fine"]) if "fine" in controls else None
            style = Style(
                torch.from_numpy(controls["acoustic"]), torch.from_numpy(controls["prosodic"]), fine
            )
            pitch, prosody = checks.pitch(controls["pitch"]), checks.prosody(controls["prosody"])
            checks.wet(tree["line"]["wet"])
            sizes = {layout.size: layout for layout in reversed(self.backend.layouts)}
            if state.ndim != 2 or len(state) != 1 or state.shape[1] not in sizes:
                raise ValueError(f"a state of the shape {tuple(state.shape)}")
            state = self.backend.layout.taken(state, sizes[state.shape[1]])
            if not is_finite(state) or not is_finite(torch.from_numpy(tree["line"]["voice"])):
                raise EngineError("a parked session whose state is not finite came: begin another")
            voice = checks.voice(style)
            self.line.restore(tree["line"])
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise EngineError(
                f"a parked session came that is damaged ({error!r}): pass what `park` returned"
            ) from error
        self._voice, self._pitch, self._prosody = voice, pitch, prosody
        return state.to(self.backend.device)


class Session(Controls):
    """Converts one stream; its output does not depend on how the input was cut into blocks.

    Args:
        backend: what runs the steps.
        voice: the voice to speak with.
        sample_rate: of the blocks that come, in Hz.
        output_rate: of what leaves, in Hz; by default the same.
        pitch: semitones added to the pitch.
        prosody: 0 keeps the speaker's own register and range, 1 takes the voice's.
        wet: 1 is the converted voice, 0 the input, equally late.
        gate: skips silence; None converts everything.
        backlog: bounds the lag for callers that pass `now`; by default nothing is ever dropped.
        together: chunks that one step may take where so many wait and the backend can: twice as
            fast, and the same but for the last bits of floats. One chunk a step gives the same bits
            however the input is cut.
    """

    def __init__(
        self,
        backend: Backend,
        voice: Styled,
        *,
        together: int = 1,
        sample_rate: float = 24_000,
        output_rate: float | None = None,
        pitch: float = 0.0,
        prosody: float = 1.0,
        wet: float = 1.0,
        gate: Gate | None = None,
        backlog: Backlog | None = None,
    ) -> None:
        super().__init__(backend, voice, pitch=pitch, prosody=prosody)
        share = checks.wet(wet)
        self.line = Line(
            backend.sample_rate,
            backend.chunk,
            backend.latency,
            self.condition(),
            rate_in=sample_rate,
            rate_out=sample_rate if output_rate is None else output_rate,
            gate=gate,
            backlog=backlog,
        )
        self.line.wet = self.line.wet_now = share
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
                "two threads came to one stream at once: open one for each, or put a lock around it"
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
                it was heard.
            EngineError: after `flush`, or while another thread is inside.
        """
        samples = check_block(block)
        captured, now = checks.moment(captured, "captured"), checks.moment(now, "now")
        with self._alone():
            if self.line.end is not None:
                raise EngineError(
                    "a block came after `flush`: call `reset` to begin another stream"
                )
            piece = max(1, int(PIECE_S * self.line.entry.rate_in))
            for start in range(0, len(samples), piece):
                when = None if captured is None else captured + start / self.line.entry.rate_in
                self.line.feed(samples[start : start + piece], when)
                self._run(now)
            return self.line.take()

    def flush(self) -> Samples:
        """The rest of the stream, as if silence followed: afterwards every input sample has its
        output."""
        with self._alone():
            self.line.finish()
            self._run(None)
            return self.line.take()

    def reset(self) -> None:
        """Another stream from the beginning, with the same voice and mix."""
        with self._alone():
            self.line.reset()
            self.state = self.backend.initial(1)

    def park(self) -> bytes:
        """The whole session as bytes; `resume` on an equal session goes on without a seam."""
        with self._alone():
            return self.parcel(self.state)

    def resume(self, data: bytes) -> None:
        """Goes on where `park` left off.

        Raises:
            EngineError: when the bytes are no session or one of another kind.
        """
        with self._alone():
            self.state = self.unparcel(data)

    def _run(self, now: float | None) -> None:
        ahead: Work | None = None
        while (work := ahead or self.line.next(now)) is not None:
            self._follow()
            works, ahead = self._together(work, now)
            if len(works) == 1:
                self.line.accept(work, self._step(work))
                continue
            [y] = self._step(replace(work, x=np.concatenate([each.x for each in works])))
            for each, part in zip(works, y.reshape(len(works), -1), strict=True):
                self.line.accept(each, [part])

    def _together(self, first: Work, now: float | None) -> tuple[list[Work], Work | None]:
        """What can be one step with `first`, and what was taken after that and cannot."""
        works = [first]
        if not self.backend.stretches or len(first.voices) > 1:
            return works, None
        while self.line.follows and len(works) < self.together:
            after = self.line.next(now)
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
