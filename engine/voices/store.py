"""The voices of a server: a folder of voice files, by name. Nothing is read or written anywhere
else."""

import bisect
import contextlib
import errno
import itertools
import json
import logging
import os
import re
import threading
import time
import unicodedata
import uuid
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from rtvc.engine.protocol.fields import LARGEST_REPLY, Code, VoiceChoice
from rtvc.engine.protocol.messages import VoiceList
from rtvc.engine.protocol.refusals import Refusal
from rtvc.errors import VoiceError
from rtvc.voices.usable import usable
from rtvc.voices.voice import Voice

NAME = re.compile(r"[^\W_][\w .\-+()']{0,63}")
"""A name: begins with a letter or a digit; no slashes, no control characters."""
SUFFIX = ".voice"
KNOWN = 256
"""Voices that are kept in memory."""
LONGEST_LIST, MOST_LISTED = LARGEST_REPLY // 2, 10_000
"""Characters, and names, of one list that a client is sent."""
RELIST_S = 0.25
"""Seconds between two readings of a folder that changes."""
SETTLED_NS = 2_000_000_000
"""Nanoseconds after which every file system gives a folder that changes another time."""
LINKLESS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What file systems say that know no hard links."""
RESERVED = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{device}{i}" for device in ("com", "lpt") for i in range(1, 10)),
}


log = logging.getLogger("rtvc.serve")


def check_name(name: str) -> str:
    """A voice's name, with its accents composed.

    Raises:
        Refusal: it is no name, or tries to be a path.
    """
    composed = unicodedata.normalize("NFC", name)
    bad = (
        not NAME.fullmatch(composed)
        or ".." in composed
        or composed[-1] in " ."
        or composed.split(".")[0].lower() in RESERVED
    )
    if bad or len(composed.encode()) > 200:
        advice = "take 1 to 64 letters, digits, spaces and - + _ . ( ) '"
        raise Refusal(
            Code.BAD_NAME, "expected a voice's name, got one that no voice can have", advice
        )
    return composed


class Names:
    """The names of a folder's voices: it is read again only when it has changed, and then a few
    times a second at most.

    Args:
        folder: that is listed.
        clock: seconds.
    """

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self.folder, self.clock = folder, clock
        self._lock = threading.Lock()
        self._names: list[str] = []
        self._stamp, self._read_at, self._settled = -1, float("-inf"), False

    def now(self) -> list[str]:
        """The names, sorted.

        Raises:
            Refusal: the folder cannot be read now.
        """
        with self._lock:
            now = self.clock()
            if now - self._read_at >= RELIST_S:
                try:
                    self._look(now)
                except OSError as error:
                    raise unavailable(error) from error
            return list(self._names)

    def _look(self, now: float) -> None:
        stamp = self.folder.stat().st_mtime_ns
        if stamp == self._stamp and self._settled:
            return
        settled = (
            time.time_ns() - stamp > SETTLED_NS
        )  # otherwise another change may bear the same time
        with os.scandir(self.folder) as entries:
            names = [
                entry.name.removesuffix(SUFFIX)
                for entry in entries
                if entry.name.endswith(SUFFIX) and entry.is_file()
            ]
        self._names = sorted(name for name in names if NAME.fullmatch(name))
        self._stamp, self._settled, self._read_at = stamp, settled, now

    def added(self, name: str) -> None:
        """A name that has just come about."""
        with self._lock:
            at = bisect.bisect_left(self._names, name)
            if self._names[at : at + 1] != [name]:
                self._names.insert(at, name)


class VoiceStore:
    """Voice files in a folder; safe to use from several threads, and by several servers on one
    folder.

    Args:
        folder: of `NAME.voice` files, made if it is not there.
        space: style space of the model; voices of another one are not offered.
        most: voices above which no more are taken.
        weights: name of the model's weights: what was fitted to others is used without its fit.
        clock: seconds.
    """

    def __init__(
        self,
        folder: Path,
        space: str | None = None,
        most: int = 1_000,
        *,
        weights: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.space, self.most, self.weights = folder.resolve(), space, most, weights
        self._names = Names(self.folder, clock)
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[tuple[int, int, int], Voice]] = OrderedDict()

    def names(self) -> list[str]:
        """All names, sorted."""
        return self._names.now()

    def listed(self) -> VoiceList:
        """What a client is told: as many names, from the first on, as a reply has room for, and how
        many there are more."""
        names = self.names()
        room = itertools.accumulate(len(json.dumps(name)) + 1 for name in names[:MOST_LISTED])
        count = sum(size <= LONGEST_LIST for size in room)
        return VoiceList(voices=tuple(names[:count]), more=len(names) - count)

    def get(self, name: str) -> Voice:
        """A voice.

        Raises:
            Refusal: no such voice, or its file cannot be used, or not now.
        """
        path = self._path(name)
        try:
            facts = path.stat()
            stamp = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
            with self._lock:
                known = self._known.get(name)
            if known is not None and known[0] == stamp:
                return known[1]
            voice = self._read(path)
        except (FileNotFoundError, IsADirectoryError, VoiceError) as error:
            if isinstance(error, VoiceError):
                log.warning("the voice %r cannot be used: %s", name, error)
            advice = "ask for `voices`, or upload one"
            raise Refusal(Code.UNKNOWN_VOICE, f"there is no voice {name!r} here", advice) from error
        except OSError as error:
            raise unavailable(error) from error
        with self._lock:
            self._known[name] = stamp, voice
            self._known.move_to_end(name)
            if len(self._known) > KNOWN:
                self._known.popitem(last=False)
        return voice

    def _read(self, path: Path) -> Voice:
        """A voice of a file that is there.

        Raises:
            OSError: the file cannot be read, which says nothing about what is in it.
            VoiceError: it is no voice, or one for another model.
        """
        path.open(
            "rb"
        ).close()  # the reader calls everything "not found", the want of a descriptor, too
        try:
            return usable(Voice.load(path), self.space, self.weights)
        except VoiceError as error:
            if isinstance(error.__cause__, OSError):
                raise OSError(f"{path.name} is there and could not be opened") from error
            raise

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
        path = self._path(name)
        if os.path.lexists(path):
            raise taken(path)
        if len(self.names()) >= self.most:
            raise Refusal(
                Code.STORE_FULL,
                f"the store holds {self.most} voices",
                "ask who runs the server to remove some",
            )
        return path.name.removesuffix(SUFFIX)

    def add(self, name: str, voice: Voice) -> None:
        """Stores a new voice: whole or not at all, and never in place of another one, whoever
        stores that.

        Raises:
            Refusal: as `vacant`, or the disk is full.
        """
        name = self.vacant(name)
        fresh = self.folder / f".{uuid.uuid4().hex}{SUFFIX}"
        try:
            voice.save(fresh)
            publish(fresh, self._path(name))
        except FileExistsError as error:
            raise taken(self._path(name)) from error
        except (OSError, VoiceError) as error:
            raise Refusal(
                Code.STORE_FULL, "the voice cannot be stored", "tell who runs the server"
            ) from error
        finally:
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)
        self._names.added(name)

    def _path(self, name: str) -> Path:
        path = self.folder / f"{check_name(name)}{SUFFIX}"
        if path.parent != self.folder:
            raise Refusal(Code.BAD_NAME, "a name that leads out of the store came")
        return path


def publish(fresh: Path, path: Path) -> None:
    """Gives a file that is written its name, unless somebody has it: one step of the file system,
    not a check and an act.

    Raises:
        FileExistsError: somebody has it.
        OSError: the folder cannot be written.
    """
    try:
        os.link(fresh, path)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in LINKLESS:
            raise
        os.close(
            os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        )  # the name first, which one alone can get
        os.replace(fresh, path)


def taken(path: Path) -> Refusal:
    """The refusal of a name that somebody has."""
    name = path.name.removesuffix(SUFFIX)
    return Refusal(Code.NAME_TAKEN, f"there is a voice {name!r} already", "take another name")


def unavailable(error: OSError) -> Refusal:
    """The refusal of what may be there, and cannot be read now."""
    log.error("the voices cannot be read: %s", error)
    return Refusal(Code.INTERNAL, "the voices cannot be read now", "try again in a moment")
