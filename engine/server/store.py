"""The voices of a server: a folder of voice files, by name. Nothing is read or written anywhere else."""

import re
import threading
import unicodedata
from pathlib import Path

from rtvc.engine.server.messages import Code, VoiceChoice
from rtvc.engine.server.reading import Refusal
from rtvc.errors import VoiceError
from rtvc.voices.voice import Voice

NAME = re.compile(r"[^\W_][\w .\-+()']{0,63}")
"""A name: begins with a letter or a digit; no slashes, no control characters."""
SUFFIX = ".voice"
RESERVED = {"con", "prn", "aux", "nul", *(f"{device}{i}" for device in ("com", "lpt") for i in range(1, 10))}


def check_name(name: str) -> str:
    """A voice's name, with its accents composed.

    Raises:
        Refusal: it is no name, or tries to be a path.
    """
    composed = unicodedata.normalize("NFC", name)
    bad = not NAME.fullmatch(composed) or ".." in composed or composed[-1] in " ." or composed.split(".")[0].lower() in RESERVED
    if bad or len(composed.encode()) > 200:
        advice = "take 1 to 64 letters, digits, spaces and - + _ . ( ) '"
        raise Refusal(Code.BAD_NAME, "a name that no voice can have came", advice)
    return composed


class VoiceStore:
    """Voice files in a folder; safe to use from several threads.

    Args:
        folder: of `NAME.voice` files, made if it is not there.
        space: style space of the model; voices of another one are not offered.
        most: voices above which no more are taken.
    """

    def __init__(self, folder: Path, space: str | None = None, most: int = 1_000) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.space, self.most = folder.resolve(), space, most
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, Voice]] = {}

    def names(self) -> list[str]:
        """All names, sorted."""
        found = (path.name.removesuffix(SUFFIX) for path in self.folder.glob(f"*{SUFFIX}") if path.is_file())
        return sorted(name for name in found if NAME.fullmatch(name))

    def get(self, name: str) -> Voice:
        """A voice.

        Raises:
            Refusal: no such voice, or its file cannot be used.
        """
        path = self._path(name)
        try:
            changed = path.stat().st_mtime
            with self._lock:
                known = self._known.get(name)
            if known is not None and known[0] == changed:
                return known[1]
            voice = Voice.load(path)
        except (OSError, VoiceError) as error:
            raise Refusal(Code.UNKNOWN_VOICE, f"there is no voice {name!r} here", "ask for `voices`, or upload one") from error
        if voice.space not in (None, self.space):
            raise Refusal(Code.UNKNOWN_VOICE, f"the voice {name!r} was made for another model", "make it again with this server's model")
        with self._lock:
            self._known[name] = (changed, voice)
        return voice

    def choose(self, choice: VoiceChoice) -> Voice:
        """One voice, or a mix of several.

        Raises:
            Refusal: as `get`, or shares that are all zero.
        """
        if isinstance(choice, str):
            return self.get(choice)
        try:
            return Voice.mix({self.get(name): share for name, share in choice.items()})
        except VoiceError as error:
            raise Refusal(Code.UNKNOWN_VOICE, f"these voices cannot be mixed: {error}") from error

    def vacant(self, name: str) -> str:
        """The name, if a new voice may have it.

        Raises:
            Refusal: it is no name, is taken, or the store is full.
        """
        name = check_name(name)
        if self._path(name).exists():
            raise Refusal(Code.NAME_TAKEN, f"there is a voice {name!r} already", "take another name")
        if len(self.names()) >= self.most:
            raise Refusal(Code.STORE_FULL, f"the store holds {self.most} voices", "ask who runs the server to remove some")
        return name

    def add(self, name: str, voice: Voice) -> None:
        """Stores a new voice.

        Raises:
            Refusal: as `vacant`, or the disk is full.
        """
        with self._lock:
            name = self.vacant(name)
            try:
                voice.save(self._path(name))
            except VoiceError as error:
                raise Refusal(Code.STORE_FULL, "the voice cannot be stored", "tell who runs the server") from error

    def _path(self, name: str) -> Path:
        path = self.folder / f"{check_name(name)}{SUFFIX}"
        if path.parent != self.folder:
            raise Refusal(Code.BAD_NAME, "a name that leads out of the store came")
        return path
