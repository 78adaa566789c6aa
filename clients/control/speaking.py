"""What of a conversion is a matter of the model, wherever that runs: the two ways to change it."""

from typing import Any, Protocol

from rtvc.audio.samples import Samples
from rtvc.checks import PITCH
from rtvc.clients.control.change import Step
from rtvc.clients.control.voicebook import Voicebook
from rtvc.clients.live.live import Live
from rtvc.clients.websocket.mic import RemoteLive
from rtvc.engine.protocol.fields import VoiceChoice
from rtvc.errors import ConfigError, VoiceError


class Speaking(Protocol):
    """The model's part of what can be changed."""

    @property
    def voice(self) -> VoiceChoice:
        """What speaks now."""
        ...

    @property
    def prosody(self) -> float:
        """0 keeps the speaker's register and range, 1 takes the voice's."""
        ...

    def names(self) -> list[str]:
        """The voices that can be chosen."""
        ...

    def speak(self, choice: VoiceChoice) -> None:
        """Another voice."""
        ...

    def add(self, name: str, recording: bytes | tuple[Samples, int]) -> dict[str, Any]:
        """Makes a voice; as `Voicebook.add`."""
        ...

    def set_pitch(self, pitch: float) -> None:
        """Semitones."""
        ...

    def set_prosody(self, prosody: float) -> None:
        """See `Change`."""
        ...

    def set_bypass(self, on: bool) -> None:
        """See `Change`."""
        ...

    @property
    def gate(self) -> bool | None:
        """Whether silence is kept while nobody speaks; None: unknown."""
        ...

    def set_gate(self, on: bool) -> None:
        """See `Change`."""
        ...

    def lookaheads(self) -> tuple[float, ...]:
        """Milliseconds that the model hears ahead: the present setting first, then the others."""
        ...

    def set_lookahead(self, milliseconds: float) -> None:
        """See `Change`."""
        ...


def stepped(asked: float | Step, now: float) -> float:
    """The pitch that is meant: itself, or one semitone from where it is."""
    if not isinstance(asked, str):
        return asked
    return max(PITCH[0], min(PITCH[1], now + (1.0 if asked == "up" else -1.0)))


class SpeakingHere:
    """The model runs in this process.

    Args:
        live: the conversion.
        voices: by name; the first one speaks.
    """

    def __init__(self, live: Live, voices: Voicebook) -> None:
        self.live, self.voices = live, voices
        self.voice: VoiceChoice = voices.names()[0]
        self.names, self.add = voices.names, voices.add

    @property
    def prosody(self) -> float:
        """See `Speaking`."""
        return self.live.session.prosody

    def speak(self, choice: VoiceChoice) -> None:
        """See `Speaking`."""
        self.live.session.swap(self.voices.choose(choice))
        self.voice = choice

    def set_pitch(self, pitch: float) -> None:
        """See `Speaking`."""
        self.live.session.pitch = pitch

    def set_prosody(self, prosody: float) -> None:
        """See `Speaking`."""
        self.live.session.prosody = prosody

    def set_bypass(self, on: bool) -> None:
        """See `Speaking`."""
        self.live.session.wet = 0.0 if on else 1.0

    @property
    def gate(self) -> bool | None:
        """See `Speaking`."""
        gate = self.live.session.chunker.gate
        return gate is not None and gate.on

    def set_gate(self, on: bool) -> None:
        """See `Speaking`.

        Raises:
            ConfigError: this machine has no speech detector.
        """
        gate = self.live.session.chunker.gate
        if gate is None:
            raise ConfigError(
                "there is no speech gate here: pip install 'rtvc-engine[live]' and start again"
            )
        gate.on = on

    def set_lookahead(self, milliseconds: float) -> None:
        """See `Speaking`.

        Raises:
            ConfigError: the model has one setting, or needs to be opened again for another.
        """
        now, *others = self.lookaheads()
        if others:
            choices = ", ".join(f"{other:g}" for other in others)
            raise ConfigError(
                f"expected the {now:g} ms of look-ahead that this conversion was started with, got"
                f" {milliseconds:g}: its engine was built for them; start again for {choices} ms"
            )
        raise ConfigError(
            f"expected the one setting of this model, which hears {now:g} ms ahead, got"
            f" {milliseconds:g} ms: leave it, or start with another --model"
        )

    def lookaheads(self) -> tuple[float, ...]:
        """See `Speaking`."""
        backend = self.live.backend
        hop = 1000 * getattr(getattr(backend, "converter", None), "hop", 0) / backend.sample_rate
        encoder = getattr(getattr(backend, "converter", None), "encoder", None)
        frames = getattr(encoder, "lookahead", None)
        if encoder is None or frames is None:
            return (1000 * backend.latency / backend.sample_rate,)
        others = [hop * other for other in encoder.lookaheads if other != frames]
        return (hop * frames, *others)


class SpeakingThere:
    """The model runs on a server.

    Args:
        live: the conversion.
        prosody: that it was started with.
    """

    def __init__(self, live: RemoteLive, prosody: float) -> None:
        self.live, self.prosody = live, prosody
        self.voice: VoiceChoice = live.voices[0]

    def names(self) -> list[str]:
        """See `Speaking`: those that it was started with first, then the server's."""
        return list(self.live.voices)

    def speak(self, choice: VoiceChoice) -> None:
        """See `Speaking`."""
        self.live.remote.update(voice=choice)
        self.voice = choice

    def add(self, name: str, recording: bytes | tuple[Samples, int]) -> dict[str, Any]:
        """See `Speaking`.

        Raises:
            VoiceError: of samples; recordings are sent as files.
        """
        if not isinstance(recording, bytes):
            raise VoiceError("expected a recording's file: record one, then send it")
        ready = self.live.remote.upload(recording, name)
        self.live.voices.append(ready.name)
        return {"name": ready.name, "grade": ready.grade, "advice": list(ready.advice)}

    def set_pitch(self, pitch: float) -> None:
        """See `Speaking`."""
        self.live.remote.update(pitch=pitch)
        self.live.pitch = pitch

    def set_prosody(self, prosody: float) -> None:
        """See `Speaking`."""
        self.live.remote.update(prosody=prosody)
        self.prosody = prosody

    def set_bypass(self, on: bool) -> None:
        """See `Speaking`."""
        wet = 0.0 if on else 1.0
        self.live.remote.update(wet=wet)
        self.live.wet = wet

    @property
    def gate(self) -> bool | None:
        """See `Speaking`."""
        return None

    def set_gate(self, on: bool) -> None:
        """See `Speaking`.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("a server's gate is chosen when a session begins: start again")

    def set_lookahead(self, milliseconds: float) -> None:
        """See `Speaking`.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("the look-ahead is the server's: ask who runs it")

    def lookaheads(self) -> tuple[float, ...]:
        """See `Speaking`: the server's, of which nothing is known."""
        return ()
