"""Protocol version 1, the text frames: every control message of either end as a closed type.
`docs/protocol.md` explains them.

Durations end in `_ms`. Unknown fields are ignored, so that later versions can add some; unknown
types are not of the protocol.
"""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, field_serializer

from rtvc.engine.protocol.fields import (
    RATES,
    VERSION,
    Code,
    Count,
    Format,
    Name,
    Rate,
    Semitones,
    Share,
    VoiceChoice,
)


class Message(BaseModel):
    """What all control messages share."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)

    def text(self) -> str:
        """The text frame."""
        return self.model_dump_json(exclude_none=True)


class Secret(Message):
    """A message with something in it that must not reach a log: shown as stars, sent as it is."""

    @field_serializer("token", "key", "control", check_fields=False, when_used="json-unless-none")
    def _reveal(self, secret: SecretStr) -> str:
        return secret.get_secret_value()


Hidden: TypeAlias = Annotated[SecretStr, Field(max_length=256)]
Chosen: TypeAlias = Annotated[SecretStr, Field(min_length=16, max_length=256)]
"""A secret that a client thinks of."""


class Hello(Secret):
    """The first message of a connection.

    Capabilities: `silence`, silent frames are understood; `acknowledge`, pings say what was
    `received`, the last frame of a session not before `stopped` has come: until then the session is
    kept. Who knows `control` may change the sessions of this connection from another one.
    """

    type: Literal["hello"] = "hello"
    version: int
    token: Hidden | None = None
    control: Chosen | None = None
    client: Annotated[str, Field(max_length=128)] = ""
    capabilities: Annotated[
        tuple[Annotated[str, Field(max_length=32)], ...], Field(max_length=32, strict=False)
    ] = ()


class Start(Message):
    """Opens a session. `block` is how many samples the client's frames usually hold; without
    `max_lag_ms` nothing is ever dropped."""

    type: Literal["start"] = "start"
    sample_rate: Rate
    output_rate: Rate | None = None
    format: Format = "s16"
    block: Annotated[int, Field(ge=1, le=192_000)] = 480
    voice: VoiceChoice
    pitch: Semitones = 0.0
    prosody: Share = 1.0
    wet: Share = 1.0
    max_lag_ms: Annotated[float, Field(ge=50, le=10_000)] | None = None
    gate: bool = False


class Resume(Secret):
    """Takes a session up again after a lost connection; `received` is the number of the next output
    frame wanted."""

    type: Literal["resume"] = "resume"
    session: Name
    key: Hidden
    received: Annotated[int, Field(ge=0, lt=2**32)]


class Upload(Message):
    """Announces a reference recording (any audio file); frames with the UPLOAD flag follow, the
    last one with END."""

    type: Literal["upload"] = "upload"
    name: Name
    size: Annotated[int, Field(ge=1, le=2**53)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class ListVoices(Message):
    """Asks for the voices."""

    type: Literal["voices"] = "voices"


class Update(Message):
    """Changes a running session, without a click."""

    type: Literal["update"] = "update"
    voice: VoiceChoice | None = None
    pitch: Semitones | None = None
    prosody: Share | None = None
    wet: Share | None = None


class Control(Secret):
    """`update` and `stats` of this connection go to another one's session from now on: that whose
    hello named this secret."""

    type: Literal["control"] = "control"
    control: Chosen


class Ping(Message):
    """Asks for a pong; `received`, the next output frame wanted, lets the server forget what came
    before it."""

    type: Literal["ping"] = "ping"
    id: Count = 0
    time: float = 0.0
    received: Annotated[int, Field(ge=0, lt=2**32)] | None = None


class AskStats(Message):
    """Asks for the session's statistics."""

    type: Literal["stats"] = "stats"


class Stop(Message):
    """No more input: the rest of the output follows, then `stopped`."""

    type: Literal["stop"] = "stop"


class Limits(Message):
    """What one client may ask of the server."""

    frame_bytes: Count
    upload_bytes: Count
    upload_seconds: float
    frames_per_second: float
    messages_per_second: float
    idle_ms: float
    resume_ms: float


class Welcome(Message):
    """The answer to hello. `chunk_ms` is how much audio the model takes a step, `latency_ms` what
    model and chunk delay."""

    type: Literal["welcome"] = "welcome"
    version: int = VERSION
    server: str
    formats: Annotated[tuple[Format, ...], Field(strict=False)]
    rates: Annotated[tuple[int, ...], Field(strict=False)] = RATES
    limits: Limits
    chunk_ms: float
    latency_ms: float


class Started(Secret):
    """A session is open; `session` and `key` resume it. `latency_ms` is how much output lags input
    when every step is instant."""

    type: Literal["started"] = "started"
    session: str
    key: SecretStr
    sample_rate: int
    output_rate: int
    format: Format
    voice: str
    latency_ms: float


class Resumed(Message):
    """The session goes on: send input frames from number `wanted` on; output follows from the
    number asked for."""

    type: Literal["resumed"] = "resumed"
    session: str
    wanted: Count


class VoiceReady(Message):
    """An uploaded recording is a voice now."""

    type: Literal["voice"] = "voice"
    name: str
    seconds: float
    speech: float
    grade: str
    advice: Annotated[tuple[str, ...], Field(strict=False)] = ()


class VoiceList(Message):
    """The names of all voices, sorted; those for which a reply has no room are counted in
    `more`."""

    type: Literal["voices"] = "voices"
    voices: Annotated[tuple[str, ...], Field(strict=False)]
    more: Count = 0


class Updated(Message):
    """What holds now."""

    type: Literal["updated"] = "updated"
    voice: str
    pitch: float
    prosody: float
    wet: float


class Controlled(Message):
    """A session of another connection is controlled from here; what holds there now."""

    type: Literal["controlled"] = "controlled"
    session: str
    voice: str
    pitch: float
    prosody: float
    wet: float


class Pong(Message):
    """The ping's id and time, and the server's clock in microseconds."""

    type: Literal["pong"] = "pong"
    id: Count
    time: float
    server_time: Count


class Totals(Message):
    """Counts of one session. Lag is the age of the first sample of an output frame when it is
    handed to the network."""

    frames_in: Count = 0
    frames_out: Count = 0
    samples_in: Count = 0
    samples_out: Count = 0
    dropped_ms: float = 0.0
    xruns: Count = 0
    lag_p50_ms: float = 0.0
    lag_p95_ms: float = 0.0
    lag_p99_ms: float = 0.0


class Stats(Totals):
    """The session so far; `queued_ms` of input and `waiting_ms` of output are on their way, `load`
    is the share of a tick in use."""

    type: Literal["stats"] = "stats"
    queued_ms: float = 0.0
    waiting_ms: float = 0.0
    load: float = 0.0


class Stopped(Totals):
    """The session is over and every sample has been sent."""

    type: Literal["stopped"] = "stopped"


class Draining(Message):
    """The server is going down: finish within so many seconds."""

    type: Literal["draining"] = "draining"
    seconds: float


class Error(Message):
    """Something was refused; if `fatal`, the connection closes."""

    type: Literal["error"] = "error"
    code: Code = Field(strict=False)
    message: str
    advice: str = ""
    fatal: bool = False


ClientMessage: TypeAlias = (
    Hello | Start | Resume | Upload | ListVoices | Update | Control | Ping | AskStats | Stop
)
ServerMessage: TypeAlias = (
    Welcome
    | Started
    | Resumed
    | VoiceReady
    | VoiceList
    | Updated
    | Controlled
    | Pong
    | Stats
    | Stopped
    | Draining
    | Error
)
FORGETFUL = ConfigDict(cache_strings="keys")
"""By default the JSON parser keeps short texts for later: tokens and session keys, too."""
FROM_CLIENT: TypeAdapter[ClientMessage] = TypeAdapter(
    Annotated[ClientMessage, Field(discriminator="type")], config=FORGETFUL
)
FROM_SERVER: TypeAdapter[ServerMessage] = TypeAdapter(
    Annotated[ServerMessage, Field(discriminator="type")], config=FORGETFUL
)


def schema() -> dict[str, Any]:
    """JSON schemas of all messages, by class name."""
    return {
        kind.__name__: kind.model_json_schema()
        for union in (ClientMessage, ServerMessage)
        for kind in union.__args__
    }
