"""The server's end of the protocol, without any socket: bytes and texts in, typed events out.

Nothing that arrives can raise: what is not of the protocol becomes a `Violation`, whose error is to
be sent back. The audio of a session (`Incoming`, `Outgoing`) outlives the connection; whoever owns
it attaches it to the connection of the moment.
"""

from enum import Enum

from rtvc.engine.protocol.fields import LARGEST_FRAME, LARGEST_TEXT, VERSION, Code
from rtvc.engine.protocol.frames import END, UPLOAD, Frame, parse
from rtvc.engine.protocol.messages import (
    FROM_CLIENT,
    ClientMessage,
    Control,
    Controlled,
    Error,
    Hello,
    Resume,
    ServerMessage,
    Start,
    Stop,
    Stopped,
    Update,
    Upload,
    Welcome,
)
from rtvc.engine.protocol.refusals import Violation, read_message, violation
from rtvc.engine.protocol.streams import Audio, Incoming, SequenceError
from rtvc.engine.protocol.upload import Uploaded, UploadReceiver
from rtvc.errors import ProtocolError


class Phase(Enum):
    """Where a connection is."""

    GREETING = "before hello was answered"
    IDLE = "without a session"
    LIVE = "in a session"
    STOPPING = "while the session's last output is sent"
    CLOSED = "closed"


class ServerSide:
    """The server's end of a connection.

    Args:
        largest_upload: bytes of a file that are taken.
    """

    def __init__(self, largest_upload: int) -> None:
        self.phase = Phase.GREETING
        self.incoming: Incoming | None = None
        self.largest_upload = largest_upload
        self._file: UploadReceiver | None = None
        self._over = False  # a session has ended here, and none has begun since
        self._controls = False  # another connection's session is changed from here

    def receive(self, data: str | bytes) -> "ClientMessage | Audio | Uploaded | Violation | None":
        """What a frame says; None when there is nothing to do. Once something fatal came, there is
        never anything to do."""
        if self.phase is Phase.CLOSED:
            return None
        event = self._text(data) if isinstance(data, str) else self._binary(data)
        if isinstance(event, Violation) and event.error.fatal:
            self.phase = Phase.CLOSED
        return event

    def send(self, message: ServerMessage) -> str:
        """The text frame of a message, which also moves the connection on."""
        if isinstance(message, Welcome | Stopped):
            self.phase, self.incoming, self._over = Phase.IDLE, None, isinstance(message, Stopped)
        elif isinstance(message, Controlled):
            self._controls = True
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

    def discard_upload(self) -> None:
        """What still comes of the announced file is thrown away."""
        if self._file is not None:
            self._file.skipped = True
            self._file.data.clear()

    def _text(self, text: str) -> "ClientMessage | Violation | None":
        message: ClientMessage | Violation = read_message(text, FROM_CLIENT, LARGEST_TEXT)
        if isinstance(message, Violation):
            fatal = self.phase is Phase.GREETING
            return Violation(
                message.error.model_copy(update={"fatal": fatal or message.error.fatal})
            )
        if isinstance(message, Hello) and message.version != VERSION:
            return violation(
                Code.VERSION,
                f"expected version {VERSION}, got {message.version}",
                "use a matching client",
                fatal=True,
            )
        if isinstance(message, Hello) != (self.phase is Phase.GREETING):
            return self._unexpected(message.type, fatal=True)
        if isinstance(message, Start | Resume | Control) and self.phase is not Phase.IDLE:
            return self._unexpected(message.type)
        if isinstance(message, Stop) and (self.phase is Phase.STOPPING or self._over):
            return None  # said again by a client that resumed, whose first one had arrived
        elsewhere = isinstance(message, Update) and self._controls and self.phase is Phase.IDLE
        if isinstance(message, Update | Stop) and self.phase is not Phase.LIVE and not elsewhere:
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

    def _announce(self, upload: Upload) -> "Upload | Violation":
        if self._file is not None:
            return violation(
                Code.UNEXPECTED,
                "an upload was announced while another is under way",
                "send them one after the other",
                fatal=True,
            )
        self._file = UploadReceiver(upload, self.largest_upload)
        if self._file.skipped:
            return violation(
                Code.TOO_LARGE,
                f"expected a file of at most {self.largest_upload} bytes, got one of {upload.size}",
            )
        return upload

    def _unexpected(self, what: str, *, fatal: bool = False) -> Violation:
        return violation(
            Code.UNEXPECTED,
            f"`{what}` came {self.phase.value}, where it has no meaning",
            "see docs/protocol.md",
            fatal=fatal,
        )

    def _binary(self, data: bytes) -> "Audio | Uploaded | Violation | None":
        if len(data) > LARGEST_FRAME:
            return violation(
                Code.TOO_LARGE,
                f"expected a frame of at most {LARGEST_FRAME} bytes, got {len(data)}",
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
            return violation(
                Code.BAD_SEQUENCE, str(problem), "number frames without a gap", fatal=True
            )
        except ProtocolError as problem:
            return violation(Code.BAD_FRAME, str(problem), "see docs/protocol.md", fatal=True)

    def _piece(self, frame: Frame) -> "Uploaded | Violation | None":
        if self._file is None:
            return self._unexpected("a piece of a file", fatal=True)
        outcome = self._file.take(frame)
        if frame.flags & END:
            self._file = None
        return outcome

    def _audio(self, frame: Frame) -> "Audio | Violation | None":
        if self.phase is Phase.STOPPING:
            return None  # it was on its way when the session was stopped
        if self.incoming is None:
            return self._unexpected("audio")
        audio = self.incoming.accept(frame)
        if audio is not None and audio.end:
            self.end()
        return audio
