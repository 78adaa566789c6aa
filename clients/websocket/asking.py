"""What is asked of a server while a session runs, whichever way leads to it."""

from abc import ABC, abstractmethod
from typing import TypeVar

from rtvc.clients.websocket.recording import Recording, named
from rtvc.engine.protocol.fields import VoiceChoice
from rtvc.engine.protocol.messages import (
    AskStats,
    ListVoices,
    Message,
    Stats,
    Update,
    Updated,
    VoiceList,
    VoiceReady,
)
from rtvc.engine.protocol.refusals import message_of

UPLOAD_S = 120.0
"""Within this time an uploaded recording has become a voice."""
Answer = TypeVar("Answer")


class Asking(ABC):
    """The questions of a client."""

    @abstractmethod
    async def _ask(self, message: Message, expected: type[Answer]) -> Answer:
        """Sends a message; returns its answer.

        Raises:
            Refusal: the server said no.
            ServiceError: no answer came, or the way is gone for good.
        """

    @abstractmethod
    async def _upload(self, name: str, data: bytes) -> VoiceReady:
        """Sends the bytes of a recording; errors as of `_ask`."""

    async def upload(self, recording: Recording, name: str | None = None) -> VoiceReady:
        """Makes a voice of a recording of somebody.

        Args:
            recording: a file in any format that the server can decode, or its bytes.
            name: of the voice; by default made of the file's name and its contents.

        Raises:
            Refusal: the server cannot use it, or has such a name.
        """
        return await self._upload(*named(recording, name))

    async def update(
        self,
        *,
        voice: VoiceChoice | None = None,
        pitch: float | None = None,
        prosody: float | None = None,
        wet: float | None = None,
    ) -> Updated:
        """Changes the running session, without a click; returns what holds now.

        Raises:
            ConfigError: a value that no session can have.
        """
        changes = message_of(Update, voice=voice, pitch=pitch, prosody=prosody, wet=wet)
        return await self._ask(changes, Updated)

    async def voices(self) -> tuple[str, ...]:
        """The names of the server's voices."""
        return (await self._ask(ListVoices(), VoiceList)).voices

    async def stats(self) -> Stats:
        """The session so far."""
        return await self._ask(AskStats(), Stats)
