"""What may be changed while a stream runs (voice, pitch, mix), and the stream as bytes to go on
from elsewhere."""

from collections.abc import Callable, Mapping
from typing import Any, TypedDict

import torch
from torch import Tensor

from rtvc import checks
from rtvc.engine.backends.base import Backend
from rtvc.engine.streams.backlog import Backlog
from rtvc.engine.streams.chunker import Chunker
from rtvc.engine.streams.gate import Gate
from rtvc.engine.streams.health import is_finite
from rtvc.engine.streams.state_bytes import from_bytes, to_bytes
from rtvc.errors import EngineError
from rtvc.voices.voice import Voice, check_voice, common_space


class StreamSettings(TypedDict, total=False):
    """What every stream may be opened with, alone or in a pool.

    Attributes:
        sample_rate: of the blocks that come, in Hz; by default 24,000.
        output_rate: of what leaves, in Hz; by default the same.
        pitch: semitones added to the pitch; by default none.
        prosody: 0 keeps the speaker's own register and range, 1 takes the voice's, the default.
        wet: 1 is the converted voice, the default, 0 the input, equally late.
        gate: skips silence; by default everything is converted.
    """

    sample_rate: float
    output_rate: float | None
    pitch: float
    prosody: float
    wet: float
    gate: Gate | None


class Controls:
    """Voice, pitch and mix of one stream: the part that a `Session` and a pool's sessions share.

    Args:
        backend: what runs the steps.
        voice: the voice to speak with.
        backlog: bounds the lag; by default nothing is ever dropped.
        sample_rate, output_rate, pitch, prosody, wet, gate: see `StreamSettings`.

    Attributes:
        chunker: the stream's samples on their way to the backend and back.
        resets: how often the converter's state was no longer finite and began anew: 0, unless a
            model or a machine is at fault.
    """

    def __init__(
        self,
        backend: Backend,
        voice: Voice,
        *,
        backlog: Backlog | None = None,
        sample_rate: float = 24_000,
        output_rate: float | None = None,
        pitch: float = 0.0,
        prosody: float = 1.0,
        wet: float = 1.0,
        gate: Gate | None = None,
    ) -> None:
        self.backend, self._voice = backend, check_voice(voice)
        self._pitch, self._prosody = checks.pitch(pitch), checks.prosody(prosody)
        self.resets = 0
        self.chunker = Chunker(
            backend.sample_rate,
            backend.chunk,
            backend.latency,
            backend.condition(voice, pitch=self._pitch, prosody=self._prosody),
            rate_in=sample_rate,
            rate_out=sample_rate if output_rate is None else output_rate,
            wet=checks.wet(wet),
            gate=gate,
            backlog=backlog,
        )

    def apply(self, change: Callable[[], None]) -> None:
        """Carries out a change of the chunker: at once here, between two steps in a pool."""
        change()

    def _speak(self, voice: Voice, pitch: float, prosody: float) -> None:
        """Takes all three over, or none: what is refused on the way leaves the old ones."""
        condition = self.backend.condition(voice, pitch=pitch, prosody=prosody)
        self._voice, self._pitch, self._prosody = voice, pitch, prosody
        self.apply(lambda: self.chunker.swap(condition))

    @property
    def voice(self) -> Voice:
        """The one that speaks: what was swapped in last, or what `mix` made."""
        return self._voice

    def swap(self, voice: Voice) -> None:
        """Another voice, click-free within 20 ms of audio.

        Raises:
            VoiceError: no voice, one of another style space than the one that speaks, or one that
                the model cannot use; the old one speaks on.
        """
        common_space(self._voice, check_voice(voice))
        self._speak(voice, self._pitch, self._prosody)

    def mix(self, weights: Mapping[Voice, float]) -> None:
        """A mix of several voices by weight, click-free within 20 ms of audio.

        Raises:
            VoiceError: see `Voice.mix` and `swap`; the old voice speaks on.
        """
        self.swap(Voice.mix(weights))

    @property
    def pitch(self) -> float:
        """Semitones added to the pitch, -24 to 24; another value raises an `AudioError` and leaves
        the old one."""
        return self._pitch

    @pitch.setter
    def pitch(self, semitones: float) -> None:
        self._speak(self._voice, checks.pitch(semitones), self._prosody)

    @property
    def prosody(self) -> float:
        """0 keeps the speaker's own register and range, 1 takes the voice's; another value raises
        an `AudioError`."""
        return self._prosody

    @prosody.setter
    def prosody(self, share: float) -> None:
        self._speak(self._voice, self._pitch, checks.prosody(share))

    @property
    def wet(self) -> float:
        """1 is the converted voice, 0 the input as it was, equally late; changes are faded over 20
        ms."""
        return self.chunker.wet

    @wet.setter
    def wet(self, share: float) -> None:
        value = checks.wet(share)
        self.apply(lambda: setattr(self.chunker, "wet", value))

    @property
    def latency(self) -> float:
        """Seconds by which output lags input when every step is instant: model, edges and one
        chunk."""
        chunker = self.chunker
        chunk = (chunker.latency + chunker.chunk) / chunker.rate
        return chunker.entry.delay + chunk + chunker.exit.delay

    def fingerprint(self) -> dict[str, Any]:
        """What must be equal for parked bytes to be resumed."""
        chunker, backend = self.chunker, self.backend
        return {
            "rates": f"{chunker.entry.rate_in}/{chunker.rate}/{chunker.exit.rate_out}",
            "chunk": backend.chunk,
            "latency": chunker.latency,
            "state": "/".join(backend.layout.names),
            "gate": chunker.gate is not None,
        }

    def to_bytes(self, state: Tensor) -> bytes:
        """The whole stream; state (1, S) is the converter's."""
        voice = self._voice
        controls: dict[str, Any] = {
            "pitch": self._pitch,
            "prosody": self._prosody,
            "space": voice.space,
            "acoustic": voice.acoustic.numpy(),
            "prosodic": voice.prosodic.numpy(),
        }
        if voice.fine is not None:
            controls |= {"fine": voice.fine.numpy(), "fitted": voice.fitted}
        return to_bytes(
            {
                "for": self.fingerprint(),
                "line": self.chunker.state(),
                "state": state.cpu().numpy(),
                "controls": controls,
            }
        )

    def from_bytes(self, data: bytes) -> Tensor:
        """Goes on from what `to_bytes` wrote; returns the converter's state (1, S).

        Raises:
            EngineError: no session, one of another kind, or one whose state is not finite.
            AudioError: controls that no session has.
            VoiceError: a voice that is none.
        """
        tree = from_bytes(data)
        if tree.get("for") != self.fingerprint():
            raise EngineError(
                f"expected a session parked as {self.fingerprint()}, got one parked as"
                f" {tree.get('for')}: resume it with equal settings"
            )
        try:
            controls, state = tree["controls"], torch.from_numpy(tree["state"])
            voice = parked_voice(controls)
            pitch, prosody = checks.pitch(controls["pitch"]), checks.prosody(controls["prosody"])
            checks.wet(tree["line"]["wet"])
            sizes = {layout.size: layout for layout in reversed(self.backend.layouts)}
            if state.ndim != 2 or len(state) != 1 or state.shape[1] not in sizes:
                raise ValueError(f"a state of the shape {tuple(state.shape)}")
            state = self.backend.layout.taken(state, sizes[state.shape[1]])
            if not is_finite(state) or not is_finite(torch.from_numpy(tree["line"]["voice"])):
                raise EngineError(
                    "expected a finite state, got a parked session with NaN or infinity: begin"
                    " another"
                )
            self.chunker.restore(tree["line"])
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise EngineError(
                f"expected a parked session, got a damaged one ({error!r}): pass what `park`"
                " returned"
            ) from error
        self._voice, self._pitch, self._prosody = voice, pitch, prosody
        return state.to(self.backend.device)


def parked_voice(controls: Mapping[str, Any]) -> Voice:
    """The voice of a parked session."""
    source: dict[str, Any] = {}
    if controls.get("space") is not None:
        source["space"] = controls["space"]
    fine = None
    if "fine" in controls:
        fine = torch.from_numpy(controls["fine"])
        source["fit"] = {"weights": controls.get("fitted")}
    return Voice(
        torch.from_numpy(controls["acoustic"]),
        torch.from_numpy(controls["prosodic"]),
        source=source,
        fine=fine,
    )
