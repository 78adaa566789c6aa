"""The voices of a conversion by name: those it was started with, those in a folder, and those that
are made meanwhile."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from rtvc.clients.sound.priority import stand_back
from rtvc.engine.protocol.fields import VoiceChoice
from rtvc.engine.voices.store import VoiceStore, check_name
from rtvc.errors import VoiceError
from rtvc.voices.voice import Voice

Samples = NDArray[np.float32]
Maker = Callable[[Path, str], Voice]
"""Makes a voice of a recording, and gives it a name."""


def numbered(voices: Sequence[Voice]) -> list[str]:
    """The names of voices; one that comes again is numbered."""
    names = list[str]()
    for voice in voices:
        name, number = voice.name or "voice", 1
        while name in names:
            number += 1
            name = f"{voice.name}-{number}"
        names.append(name)
    return names


class Voicebook:
    """Names and voices.

    Args:
        names: of the voices that are there from the beginning.
        voices: themselves, which somebody else may replace by better ones.
        make: makes more.
        store: a folder of further ones, in which new ones are kept.
    """

    def __init__(
        self,
        names: Sequence[str],
        voices: Sequence[Voice],
        make: Maker,
        store: VoiceStore | None = None,
    ) -> None:
        self._names, self._first, self._make, self._store = list(names), voices, make, store
        self._made = dict[str, Voice]()

    def names(self) -> list[str]:
        """All names: those of the beginning first."""
        known = [*self._names, *self._made]
        stored = self._store.names() if self._store is not None else []
        return [*known, *(name for name in stored if name not in known)]

    def choose(self, choice: VoiceChoice) -> Voice:
        """One voice, or a mix of several.

        Raises:
            Refusal: the folder's voice of that name cannot be used.
            VoiceError: no such voice, or shares that are all zero.
        """
        if isinstance(choice, str):
            return self._get(choice)
        return Voice.mix({self._get(name): share for name, share in choice.items()})

    def add(self, name: str, recording: bytes | tuple[Samples, int]) -> dict[str, Any]:
        """Makes a voice of a recording, of its file's bytes or of samples (N,) and their rate;
        says how good it is. Takes seconds.

        Raises:
            AudioError: the recording cannot be used.
            Refusal: a name that no voice can have.
            VoiceError: there is such a voice.
        """
        name = check_name(name)
        if name in self.names():
            raise VoiceError(f"expected a new name, got {name!r}, which a voice has: take another")
        stand_back()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.wav"
            if isinstance(recording, bytes):
                path.write_bytes(recording)
            else:
                soundfile.write(path, *recording, subtype="PCM_24")
            voice = self._make(path, name)
        if self._store is not None:
            self._store.add(name, voice)
        self._made[name] = voice
        entries = voice.references
        return {
            "name": name,
            "grade": entries[0]["grade"] if entries else "",
            "advice": [line for entry in entries for line in entry["advice"]],
        }

    def _get(self, name: str) -> Voice:
        if name in self._names:
            return self._first[self._names.index(name)]
        if name in self._made:
            return self._made[name]
        if self._store is not None:
            return self._store.get(name)
        raise VoiceError(f"expected one of {', '.join(self.names())}, got the voice {name!r}")
