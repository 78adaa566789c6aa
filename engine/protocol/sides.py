"""Protocol version 1 without any socket: bytes and texts in, typed events out, for both ends of one
connection.

Nothing that arrives can raise: what is not of the protocol becomes a `Refused`, whose error is to
be sent back. The audio of a session (`Incoming`, `Outgoing`) outlives the connection; whoever owns
it attaches it to the connection of the moment.
"""

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import SecretStr

from rtvc.engine.protocol.frames import END, UPLOAD, Frame, parse
from rtvc.engine.protocol.messages import (
    FROM_CLIENT,
    FROM_SERVER,
    VERSION,
    ClientMessage,
    Code,
    Error,
    Hello,
    Ping,
    Resume,
    Resumed,
    ServerMessage,
    Start,
    Started,
    Stop,
    Stopped,
    Update,
    Upload,
    Welcome,
)
from rtvc.engine.protocol.refusals import (
    LARGEST_FRAME,
    LARGEST_REPLY,
    LARGEST_TEXT,
    PIECE,
    Phase,
    Receiving,
    Refused,
    Uploaded,
    made,
    read_message,
    refuse,
)
from rtvc.engine.protocol.streams import Audio, Incoming, Outgoing, SequenceError
from rtvc.errors import ProtocolError

Samples = NDArray[np.float32]

ACKNOWLEDGE_S = 2.0
"""Seconds of audio after which a client says that they have come, long before a server would have
to forget them."""


class ServerSide:
    """The server's end of a connection.

    Args:
        largest_upload: bytes of a file that are taken.
    """

    def __init__(self, largest_upload: int) -> None:
        self.phase = Phase.GREETING
        self.incoming: Incoming | None = None
        self.largest_upload = largest_upload
        self._file: Receiving | None = None
        self._over = False  # a session has ended here, and none has begun since

    def receive(self, data: str | bytes) -> "ClientMessage | Audio | Uploaded | Refused | None":
        """What a frame says; None when there is nothing to do. Once something fatal came, there is
        never anything to do."""
        if self.phase is Phase.CLOSED:
            return None
        event = self._text(data) if isinstance(data, str) else self._binary(data)
        if isinstance(event, Refused) and event.error.fatal:
            self.phase = Phase.CLOSED
        return event

    def send(self, message: ServerMessage) -> str:
        """The text frame of a message, which also moves the connection on."""
        if isinstance(message, Welcome | Stopped):
            self.phase, self.incoming, self._over = Phase.IDLE, None, isinstance(message, Stopped)
        elif isinstance(message, Error) and message.fatal:
            self.phase = Phase.CLOSED
        return message.text()

    def attach(self, incoming: Incoming) -> None:
        """The session whose audio arrives from now on; call it before `started` or `resumed` is
        sent."""
        self.incoming, self._over = incoming, False
        self.phase = Phase.STOPPING if incoming.ended else Phase.LIVE

    @property
    def upload_bytes(self) -> int:
        """Bytes of the announced file that have come."""
        return 0 if self._file is None else len(self._file.data)

    def refuse_upload(self) -> None:
        """What still comes of the announced file is thrown away."""
        if self._file is not None:
            self._file.skipped = True
            self._file.data.clear()

    def _text(self, text: str) -> "ClientMessage | Refused | None":
        message: ClientMessage | Refused = read_message(text, FROM_CLIENT, LARGEST_TEXT)
        if isinstance(message, Refused):
            fatal = self.phase is Phase.GREETING
            return Refused(message.error.model_copy(update={"fatal": fatal or message.error.fatal}))
        if isinstance(message, Hello) and message.version != VERSION:
            return refuse(
                Code.VERSION,
                f"version {message.version} came, {VERSION} is spoken here",
                "use a matching client",
                fatal=True,
            )
        if isinstance(message, Hello) != (self.phase is Phase.GREETING):
            return self._unexpected(message.type, fatal=True)
        if isinstance(message, Start | Resume) and self.phase is not Phase.IDLE:
            return self._unexpected(message.type)
        if isinstance(message, Stop) and (self.phase is Phase.STOPPING or self._over):
            return None  # said again by a client that resumed, whose first one had arrived
        if isinstance(message, Update | Stop) and self.phase is not Phase.LIVE:
            return self._unexpected(message.type)
        if isinstance(message, Upload):
            return self._announce(message)
        if isinstance(message, Stop):
            self.end()
        return message

    def end(self) -> None:
        """No more audio will be taken."""
        self.phase = Phase.STOPPING
        if self.incoming is not None:
            self.incoming.ended = True

    def _announce(self, upload: Upload) -> "Upload | Refused":
        if self._file is not None:
            return refuse(
                Code.UNEXPECTED,
                "an upload was announced while another is under way",
                "send them one after the other",
                fatal=True,
            )
        self._file = Receiving(upload, self.largest_upload)
        if self._file.skipped:
            return refuse(
                Code.TOO_LARGE,
                f"a file of {upload.size} bytes was announced, at most {self.largest_upload} were"
                " wanted",
            )
        return upload

    def _unexpected(self, what: str, *, fatal: bool = False) -> Refused:
        return refuse(
            Code.UNEXPECTED,
            f"`{what}` came {self.phase.value}, where it has no meaning",
            "see docs/protocol.md",
            fatal=fatal,
        )

    def _binary(self, data: bytes) -> "Audio | Uploaded | Refused | None":
        if len(data) > LARGEST_FRAME:
            return refuse(
                Code.TOO_LARGE,
                f"a frame of {len(data)} bytes came, at most {LARGEST_FRAME} were wanted",
                fatal=True,
            )
        if self.phase is Phase.GREETING:
            return self._unexpected("audio", fatal=True)
        try:
            frame = parse(data)
            if frame.flags & UPLOAD:
                return self._piece(frame)
            return self._audio(frame)
        except SequenceError as problem:
            return refuse(
                Code.BAD_SEQUENCE, str(problem), "number frames without a gap", fatal=True
            )
        except ProtocolError as problem:
            return refuse(Code.BAD_FRAME, str(problem), "see docs/protocol.md", fatal=True)

    def _piece(self, frame: Frame) -> "Uploaded | Refused | None":
        if self._file is None:
            return self._unexpected("a piece of a file", fatal=True)
        found = self._file.take(frame)
        if frame.flags & END:
            self._file = None
        return found

    def _audio(self, frame: Frame) -> "Audio | Refused | None":
        if self.phase is Phase.STOPPING:
            return None  # it was on its way when the session was stopped
        if self.incoming is None:
            return self._unexpected("audio")
        audio = self.incoming.accept(frame)
        if audio is not None and audio.end:
            self.end()
        return audio


class ClientSide:
    """The client's end, which remembers what it takes to resume: keep it over the connections of
    one session.

    Args:
        client: what it calls itself.
        capabilities: what it understands besides the protocol's core; who names `acknowledge` sends
            each `acknowledgement`.
        keep: seconds of sent audio that are kept; systems may buffer megabytes of it that a lost
            connection takes along.
    """

    def __init__(
        self, client: str, capabilities: tuple[str, ...] = ("silence",), keep: float = 60.0
    ) -> None:
        self.client, self.capabilities, self.keep = client, capabilities, keep
        self.incoming: Incoming | None = None
        self.outgoing: Outgoing | None = None
        self.welcome: Welcome | None = None
        self.started: Started | None = None
        self._asked: Start | None = None
        self._stopping = False
        self._news = 0.0  # seconds of audio that came since the last acknowledgement
        self._final: int | None = None  # frames of a session that has just ended

    def acknowledgement(self, *, always: bool = False) -> str | None:
        """A ping that says which frames have come, when enough of them have or a session has ended;
        None when there is no need.

        The last frame of a session is acknowledged only once `stopped` has come, because the server
        forgets the session then.

        Args:
            always: while a session runs, even if little has come.
        """
        if self._final is not None:
            received, self._final = self._final, None
        elif self.incoming is not None and (always or self._news >= ACKNOWLEDGE_S):
            received = self.incoming.wanted - self.incoming.ended
        else:
            return None
        self._news = 0.0
        return Ping(received=received).text()

    def hello(self, token: str | None = None) -> str:
        """The first text of a connection.

        Raises:
            ConfigError: a token that no server has.
        """
        secret = None if token is None else SecretStr(token)
        return made(
            Hello, version=VERSION, token=secret, client=self.client, capabilities=self.capabilities
        ).text()

    def start(self, settings: Start) -> str:
        """Asks for a session."""
        self._asked, self._stopping = settings, False
        return settings.text()

    def audio(self, samples: Samples, timestamp: int, *, dropped: bool = False) -> bytes:
        """The next frame of a running session: samples (N,) float32, captured at `timestamp`
        microseconds of the client's clock.

        Raises:
            ProtocolError: without a session, or after `stop`.
        """
        if self.outgoing is None or self._stopping:
            raise ProtocolError(
                "audio came without a running session: wait for `started`, and send none after"
                " `stop`"
            )
        return self.outgoing.frame(samples, timestamp, dropped=dropped)

    def stop(self) -> str:
        """No more audio follows."""
        self._stopping = True
        return Stop().text()

    def upload(self, name: str, data: bytes) -> Iterator[str | bytes]:
        """The frames that send a reference recording.

        Raises:
            ConfigError: a name that no voice can have.
        """
        yield made(
            Upload, name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest()
        ).text()
        for index, at in enumerate(range(0, len(data), PIECE)):
            yield Frame(
                UPLOAD | END * (at + PIECE >= len(data)), 0, index, 0, data[at : at + PIECE]
            ).to_bytes()

    def resume(self) -> str:
        """Asks for the session of the lost connection, on a new one, once `welcome` has come.

        Raises:
            ProtocolError: there was none.
        """
        if self.started is None or self.incoming is None:
            raise ProtocolError("there is no session to resume: start one")
        return Resume(
            session=self.started.session, key=self.started.key, received=self.incoming.wanted
        ).text()

    def again(self, resumed: Resumed) -> list[str | bytes]:
        """What must be sent again once `resumed` has come.

        Raises:
            ProtocolError: the server wants frames that are no longer kept.
        """
        assert self.outgoing is not None
        frames: list[str | bytes] = list(self.outgoing.again(resumed.wanted))
        return [*frames, Stop().text()] if self._stopping else frames

    def receive(self, data: str | bytes) -> "ServerMessage | Audio | Refused | None":
        """What a frame says; None for audio that came before."""
        if isinstance(data, bytes):
            return self._binary(data)
        message: ServerMessage | Refused = read_message(data, FROM_SERVER, LARGEST_REPLY)
        if isinstance(message, Welcome):
            self.welcome = message
        elif isinstance(message, Started) and self._asked is not None:
            self.started = message
            self.outgoing = Outgoing(message.format, message.sample_rate, self.keep)
            self.incoming = Incoming(message.format, message.output_rate)
        elif isinstance(message, Stopped):
            self.started = self.outgoing = self.incoming = None
            self._final = message.frames_out
        return message

    def _binary(self, data: bytes) -> "Audio | Refused | None":
        if self.incoming is None:
            return refuse(Code.UNEXPECTED, "audio came without a session")
        try:
            audio = self.incoming.accept(parse(data))
            self._news += 0.0 if audio is None else len(audio.samples) / self.incoming.rate
            return audio
        except SequenceError as problem:
            return refuse(Code.BAD_SEQUENCE, str(problem), fatal=True)
        except ProtocolError as problem:
            return refuse(Code.BAD_FRAME, str(problem), fatal=True)
