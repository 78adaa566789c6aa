"""Voices are fitted to their recordings while somebody already speaks with them, and taken over
when they are ready."""

import threading
from collections.abc import Sequence
from typing import Protocol

from rtvc.clients.sound.priority import stand_back
from rtvc.errors import RtvcError
from rtvc.voices.voice import Voice


class VoiceMaker(Protocol):
    """What makes voices: `rtvc.converter.VoiceConverter`."""

    def voice(self, *references: str, fit: int = 0) -> Voice:
        """The voice of recordings, fitted in so many steps."""
        ...


class Speaking(Protocol):
    """What speaks: a session."""

    @property
    def voice(self) -> object:
        """The one it speaks with."""
        ...

    def swap(self, voice: Voice) -> None:
        """Another voice from now on."""
        ...


class Fitting(threading.Thread):
    """Fits one voice after the other, on a lower priority.

    Args:
        maker: that made the voices.
        names: of the recordings, one a voice; voice files are left as they are.
        voices: made of them, which are replaced by the fitted ones.
        session: that speaks with one of them, or with something else.
        steps: of fitting.
    """

    def __init__(
        self,
        maker: VoiceMaker,
        names: Sequence[str],
        voices: list[Voice],
        session: Speaking,
        steps: int,
    ) -> None:
        super().__init__(name="rtvc-fitting", daemon=True)
        self.maker, self.names, self.voices = maker, list(names), voices
        self.session, self.steps = session, steps
        self.problem = ""

    def run(self) -> None:
        """Ends when all are fitted."""
        stand_back()
        for index, name in enumerate(self.names):
            if name.endswith(".voice"):
                continue
            try:
                fitted = self.maker.voice(name, fit=self.steps)
            except RtvcError as error:  # it speaks on as it is
                self.problem = str(error)
                continue
            before, self.voices[index] = self.voices[index], fitted
            if self.session.voice is before:
                self.session.swap(fitted)
