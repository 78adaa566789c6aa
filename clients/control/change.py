"""What a running conversion can be told, as one closed type: by the page, `rtvc control`, a key or
a program of one's own."""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rtvc.engine.protocol.fields import Semitones, Share, VoiceChoice
from rtvc.errors import ConfigError

Switch: TypeAlias = bool | Literal["toggle"]
Step: TypeAlias = Literal["up", "down"]
DeviceName: TypeAlias = Annotated[str, Field(max_length=256)]

ON = {"on": True, "start": True, "off": False, "stop": False, "toggle": "toggle"}
"""Words for the position of a switch; without one it is toggled."""


class Change(BaseModel):
    """What is to change; what is not named stays.

    Attributes:
        voice: a name, or names and their shares.
        pitch: semitones added, or one more or less.
        prosody: 0 keeps one's own register and range, 1 takes the voice's.
        bypass: the input is heard in place of the conversion.
        mute: nothing is heard.
        gate: silence while nobody speaks.
        lookahead: milliseconds that the model hears ahead.
        record: source and conversion are recorded.
        agc: the slow automatic gain.
        denoise: the noise suppressor.
        virtual_mic: other programs can pick what is heard as a microphone.
        input: the microphone: index, name or a part of it; empty for the default.
        output: the loudspeaker.
        monitor: a second loudspeaker; null for none, empty for the default.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    voice: VoiceChoice | None = None
    pitch: Semitones | Step | None = None
    prosody: Share | None = None
    bypass: Switch | None = None
    mute: Switch | None = None
    gate: Switch | None = None
    lookahead: Annotated[float, Field(ge=0, le=1_000)] | None = None
    record: Switch | None = None
    agc: Switch | None = None
    denoise: Switch | None = None
    virtual_mic: Switch | None = None
    input: DeviceName | None = None
    output: DeviceName | None = None
    monitor: DeviceName | None = None

    def asked(self) -> dict[str, Any]:
        """What was named, in the order of the fields."""
        return {name: getattr(self, name) for name in type(self).model_fields if self.names(name)}

    def names(self, field: str) -> bool:
        """Whether a field was named; for `monitor`, null is a value."""
        return field in self.model_fields_set and (
            field == "monitor" or getattr(self, field) is not None
        )


SWITCHES = tuple(
    name for name, field in Change.model_fields.items() if field.annotation == Switch | None
)


def switched(position: Switch, now: bool) -> bool:
    """Where a switch is afterwards."""
    return not now if position == "toggle" else position


def parsed(text: str | bytes) -> Change:
    """A change of its JSON.

    Raises:
        ConfigError: it is none.
    """
    try:
        return Change.model_validate_json(text)
    except ValidationError as problem:
        raise ConfigError(told(problem)) from None


def of_words(words: Sequence[str]) -> Change:
    """A change of a command line: `voice anna`, `mix a:0.7 b:0.3`, `bypass on`, `mute`, `pitch -2`,
    `prosody 0.5`, `record start`.

    Raises:
        ConfigError: it is none.
    """
    name, rest = words[0].replace("-", "_"), list(words[1:])
    if name in SWITCHES and len(rest) <= 1:
        word = rest[0] if rest else "toggle"
        if word not in ON:
            raise ConfigError(f"expected {name} {'|'.join(ON)}, got {word!r}")
        return Change.model_validate({name: ON[word]})
    if name == "mix":
        return change_of("voice", dict(share(part) for part in rest))
    if name not in Change.model_fields or name in SWITCHES:
        raise ConfigError(
            f"expected one of {', '.join([*Change.model_fields, 'mix', 'status'])}, got"
            f" {words[0]!r}: see `rtvc control --help`"
        )
    if len(rest) != 1:
        raise ConfigError(f"expected one value after {words[0]}, got {len(rest)}")
    value: str | None = rest[0]
    if name == "monitor" and value == "off":
        value = None
    elif name in ("input", "output", "monitor") and value == "default":
        value = ""
    return change_of(name, value)


def share(part: str) -> tuple[str, str]:
    """`anna:0.7` -> the name and the share; without one, 1."""
    name, colon, weight = part.rpartition(":")
    return (name, weight) if colon else (part, "1")


def change_of(name: str, value: Any) -> Change:
    """A change of one field.

    Raises:
        ConfigError: a value that it cannot have.
    """
    try:
        return Change.model_validate({name: value})
    except ValidationError as problem:
        raise ConfigError(told(problem)) from None


def told(problem: ValidationError) -> str:
    """The first thing that is wrong, in one line."""
    first = problem.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"][:1]) or "the whole"
    given = json.dumps(first["input"], default=str)[:80]
    return f"{where}: {first['msg']}, got {given}"
