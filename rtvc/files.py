"""One way to write, whatever the target is.

a regular file, or a name that is free   whole or not at all: written beside it, then renamed
a link                                   followed; it stays a link
a pipe, a FIFO, a device                 written through when the content is whole; it stays
`-`, /dev/stdout, /dev/fd/3              the open descriptor, written through
a folder, a socket, a block device       refused
"""

import contextlib
import errno
import json
import os
import shutil
import stat
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from rtvc.errors import OutputError

StrPath = str | os.PathLike[str]

STANDARD = "-"
"""The path that stands for standard input where a file is read, and for standard output where
one is written."""
TEMPORARY = ".rtvc-"
"""Beginning of the names of unfinished files. Their length does not depend on the target's name,
which may be as long as the file system allows."""
SUFFIX_BYTES = 16
"""Longest suffix that an unfinished file keeps: libraries choose the format by it."""
FORCE = "say --force to replace it"
LONGEST_CHAIN = 40
"""Links followed one after another, as many as Linux follows."""
KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISREG, "file"),
    (stat.S_ISDIR, "folder"),
    (stat.S_ISFIFO, "pipe"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "block device"),
    (stat.S_ISSOCK, "socket"),
)
STREAMS = ("pipe", "device")
"""What is written through."""
REASONS = {
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.ENOSPC: "no space is left",
    errno.EBADF: "it is not open for writing",
    errno.ELOOP: "its links lead in a circle",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ENXIO: "nothing is behind it",
}


def kind(path: StrPath) -> str:
    """What is at a path, links followed: `file`, `folder`, `pipe`, `device`, `block device`,
    `socket`; empty where nothing is, or where nothing can be under such a name."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return ""
    return kind_of(mode)


def named(path: StrPath) -> str | bytes:
    """A path for a library that opens it itself: names that are not UTF-8 pass as their bytes."""
    return os.fsencode(path) if os.name == "posix" else os.fspath(path)


def kind_of(mode: int) -> str:
    """`kind` by the mode of a file's status."""
    return next((word for test, word in KINDS if test(mode)), "file")


def descriptor_of(path: StrPath) -> int | None:
    """The open descriptor that a path stands for: 1 for `-`, N for /dev/fd/N and links to it."""
    place = os.fspath(path)
    if place == STANDARD:
        return 1
    folders = {"/dev/fd", os.path.realpath("/proc/self/fd")}
    for _ in range(LONGEST_CHAIN):
        folder, name = os.path.split(place)
        if name.isdecimal() and {folder, os.path.realpath(folder)} & folders:
            return int(name)
        try:
            place = os.path.join(folder, os.readlink(place))
        except (OSError, ValueError):
            return None
    return None


def is_standard_output(path: StrPath) -> bool:
    """Whether writing to a path fills standard output: then nothing else may be printed there."""
    return descriptor_of(path) == 1


def is_stream(path: StrPath) -> bool:
    """Whether a path is written through, not replaced: a descriptor, pipe, FIFO or device."""
    return descriptor_of(path) is not None or kind(path) in STREAMS


def cannot(path: StrPath, reason: str | OSError, advice: str = "") -> OutputError:
    """The error that says why a target cannot be written, and what to do."""
    if isinstance(reason, OSError):
        number = reason.errno or 0
        reason = REASONS.get(number) or reason.strerror or str(reason) or type(reason).__name__
        if number == errno.ENAMETOOLONG:
            advice = "take a shorter one"
    advice = advice or "check the folder, its permissions and the free space"
    return OutputError(f"{path} cannot be written ({reason}): {advice}")


def check_target(
    path: StrPath,
    *,
    sources: Iterable[StrPath] = (),
    force: bool | None = None,
    folders: bool = False,
) -> Path:
    """The path, if a file can be written there; to be asked before long work.

    Args:
        path: of the target; `-` is standard output.
        sources: files that the work reads, none of which is to be lost.
        force: replace the target even if it is one of the sources; None where nobody can say so.
        folders: whether the target's folder will be made where it is missing (`write` does).

    Raises:
        OutputError: it cannot be written, or is one of the sources.
    """
    path = Path(path)
    try:
        place = _place(path)
        if place is None:
            return path
        for source in sources if not force else ():
            if kind(source) == "file" and kind(place) and os.path.samefile(source, place):
                advice = "name another" if force is None else f"name another, or {FORCE}"
                raise cannot(path, f"it is {source}, which is read", advice)
        folder = place.parent
        while folders and not kind(folder) and folder != folder.parent:
            folder = folder.parent
        _try_folder(path, folder)
    except OutputError:
        raise
    except ValueError as error:
        raise cannot(path, str(error), "take another name") from error
    except OSError as error:
        raise cannot(path, error) from error
    return path


def check_folder(path: StrPath) -> Path:
    """The path, if it is a folder in which files can be written, or can be made one.

    Raises:
        OutputError: it is something else, or nothing can be written there.
    """
    path = Path(path)
    try:
        check_target(path / "file", folders=True)
    except OutputError as error:
        if kind(path) not in ("", "folder"):
            raise cannot(
                path, f"expected a folder, it is a {kind(path)}", "name another"
            ) from error
        raise
    return path


def _try_folder(path: Path, folder: Path) -> None:
    """Makes and removes a file in a folder: the only check that holds on every file system."""
    there = kind(folder)
    if there != "folder":
        reason = f"{folder} is a {there}" if there else f"there is no folder {folder}"
        raise cannot(path, reason, "name a folder" if there else "make the folder first")
    trial = folder / f"{TEMPORARY}{uuid.uuid4().hex[:8]}"
    try:
        os.close(os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        os.unlink(trial)
    except FileNotFoundError as error:
        raise cannot(path, f"no file can be made in {folder}", "name another folder") from error


def _place(path: Path) -> Path | None:
    """Where links lead, for what is replaced; None for what is written through.

    Raises:
        OSError: it can be neither.
    """
    number = descriptor_of(path)
    if number is not None:
        os.write(number, b"")  # fails on a descriptor that is closed, or open for reading
        return None
    try:
        mode: int | None = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = None
    if mode is not None:
        there = kind_of(mode)
        if there not in ("file", *STREAMS):
            expected = "expected a file, pipe or device"
            raise cannot(path, f"{expected}, it is a {there}", "name another")
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if there in STREAMS:
            return None
    return Path(os.path.realpath(path)) if os.path.islink(path) else path


@contextmanager
def replacing(path: StrPath) -> Iterator[Path]:
    """A new name of the same suffix: what the block writes there becomes the content of `path`
    when the block ends well.

    When it does not, the new file is removed and `path` is as it was.

    Raises:
        OutputError: the target, or what the block wrote, cannot be written.
    """
    path = Path(path)
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= SUFFIX_BYTES else ""
    try:
        place = _place(path)
        if place is None:
            with tempfile.TemporaryDirectory(prefix="rtvc-") as folder:
                fresh = Path(folder) / f"whole{suffix}"
                yield fresh
                _pass_on(fresh, path)
            return
        if kind(place.parent) != "folder":
            _try_folder(path, place.parent)
        fresh = place.with_name(f"{TEMPORARY}{uuid.uuid4().hex[:8]}{suffix}")
        try:
            yield fresh
            if kind(place) == "file":
                shutil.copymode(place, fresh)  # what was kept from others stays kept from them
            os.replace(fresh, place)
        finally:
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)
    except OutputError:
        raise
    except OSError as error:
        raise cannot(path, error) from error


def _pass_on(whole: Path, path: Path) -> None:
    """Writes a finished file through a descriptor, pipe or device."""
    number = descriptor_of(path)
    if number == 1:
        sys.stdout.flush()
    opened = os.open(path, os.O_WRONLY) if number is None else os.dup(number)
    with open(whole, "rb") as source, open(opened, "wb") as sink:
        shutil.copyfileobj(source, sink)


def write(
    path: StrPath,
    content: bytes | memoryview | str | Callable[[BinaryIO], object],
    *,
    durable: bool = False,
) -> None:
    """Writes a file, and its folder where that is missing.

    Args:
        path: where to.
        content: bytes, a text (UTF-8), or a function that fills the open file.
        durable: whether it must outlive the loss of power that follows at once.

    Raises:
        OutputError: it cannot be written; what was there is as it was.
    """
    path = Path(path)
    if not is_stream(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot(path, error) from error
    with replacing(path) as fresh, open(fresh, "wb") as sink:
        if callable(content):
            content(sink)
        else:
            sink.write(content.encode() if isinstance(content, str) else content)
        if durable:
            sink.flush()
            os.fsync(sink.fileno())
    if durable and not is_stream(path):
        folder = os.open(Path(os.path.realpath(path)).parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_json(path: StrPath, value: Any) -> None:
    """Writes a value as JSON that every reader takes: no NaN."""
    write(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: StrPath) -> Any:
    """The value of a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON, not UTF-8, or nested too deeply.
    """
    return parsed(Path(path).read_text("utf-8-sig"))


def parsed(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
