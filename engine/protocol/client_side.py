"""The client's end of the protocol, without any socket: typed events from bytes and texts, and the
bytes and texts of what is asked for."""

import hashlib
from collections.abc import Iterator

from pydantic import SecretStr

from rtvc.audio.samples import Samples
from rtvc.engine.protocol.fields import LARGEST_REPLY, VERSION, Code
from rtvc.engine.protocol.frames import END, UPLOAD, Frame, parse
from rtvc.engine.protocol.messages import (
    FROM_SERVER,
    Hello,
    Ping,
    Resume,
    Resumed,
    ServerMessage,
    Start,
    Started,
    Stop,
    Stopped,
    Upload,
    Welcome,
)
from rtvc.engine.protocol.refusals import Violation, message_of, read_message, violation
from rtvc.engine.protocol.streams import Audio, Incoming, Outgoing, SequenceError
from rtvc.engine.protocol.upload import PIECE
from rtvc.errors import ProtocolError

ACKNOWLEDGE_S = 2.0
"""Seconds of audio after which a client says that they have come, long before a server would have
to forget them."""


class ClientSide:
    """The client's end, which remembers what it takes to resume: keep it over the connections of
    one session.

    Args:
        client: what it calls itself.
        capabilities: what it understands besides the protocol's core; who names `acknowledge` sends
            each `acknowledgement`.
        keep: seconds of sent audio that are kept; systems may buffer megabytes of it that a lost
            connection takes along.

    Attributes:
        stopping: `stop` was said: no more audio follows, and `stop` is said again after a
            resumption.
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
        self.stopping = False
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
            received = self.incoming.expected - self.incoming.ended
        else:
            return None
        self._news = 0.0
        return Ping(received=received).text()

    def hello(self, token: str | None = None, control: str | None = None) -> str:
        """The first text of a connection; who knows `control` may change its sessions.

        Raises:
            ConfigError: a token that no server has, or a secret that is too short.
        """
        secrets = {"token": token, "control": control}
        return message_of(
            Hello,
            version=VERSION,
            client=self.client,
            capabilities=self.capabilities,
            **{name: SecretStr(text) for name, text in secrets.items() if text is not None},
        ).text()

    def start(self, settings: Start) -> str:
        """Asks for a session."""
        self._asked, self.stopping = settings, False
        return settings.text()

    def audio(self, samples: Samples, timestamp: int, *, dropped: bool = False) -> bytes:
        """The next frame of a running session: samples (N,) float32, captured at `timestamp`
        microseconds of the client's clock.

        Raises:
            ProtocolError: without a session, or after `stop`.
        """
        if self.outgoing is None or self.stopping:
            raise ProtocolError(
                "audio came without a running session: wait for `started`, and send none after"
                " `stop`"
            )
        return self.outgoing.frame(samples, timestamp, dropped=dropped)

    def stop(self) -> str:
        """No more audio follows."""
        self.stopping = True
        return Stop().text()

    def upload(self, name: str, data: bytes) -> Iterator[str | bytes]:
        """The frames that send a reference recording.

        Raises:
            ConfigError: a name that no voice can have.
        """
        yield message_of(
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
            session=self.started.session, key=self.started.key, received=self.incoming.expected
        ).text()

    def again(self, resumed: Resumed) -> list[str | bytes]:
        """What must be sent again once `resumed` has come.

        Raises:
            ProtocolError: the server wants frames that are no longer kept.
        """
        assert self.outgoing is not None
        frames: list[str | bytes] = list(self.outgoing.again(resumed.wanted))
        return [*frames, Stop().text()] if self.stopping else frames

    def receive(self, data: str | bytes) -> "ServerMessage | Audio | Violation | None":
        """What a frame says; None for audio that came before."""
        if isinstance(data, bytes):
            return self._binary(data)
        message: ServerMessage | Violation = read_message(data, FROM_SERVER, LARGEST_REPLY)
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

    def _binary(self, data: bytes) -> "Audio | Violation | None":
        if self.incoming is None:
            return violation(Code.UNEXPECTED, "audio came without a session")
        try:
            audio = self.incoming.accept(parse(data))
            self._news += 0.0 if audio is None else len(audio.samples) / self.incoming.rate
            return audio
        except SequenceError as problem:
            return violation(Code.BAD_SEQUENCE, str(problem), fatal=True)
        except ProtocolError as problem:
            return violation(Code.BAD_FRAME, str(problem), fatal=True)
