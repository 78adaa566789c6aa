"""Recordings opened for decoding: files, pipes and standard input."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, cast

from rtvc.audio.containers import HEAD as CONTAINER_HEAD
from rtvc.audio.containers import Contained, container_of
from rtvc.audio.headers import HEAD, LARGEST, SLACK, THAT, repaired, warn_cut
from rtvc.errors import AudioError
from rtvc.files import STANDARD, StrPath, kind, kind_of, named

if TYPE_CHECKING:
    from soundfile import SoundFile

IN_MEMORY = 1 << 26
"""Bytes of a pipe that are kept in memory; more go to a temporary file."""
LONGEST_PIPE = 1 << 32
"""Bytes that are read of a pipe, as much as a WAV file can hold: some pipes never end."""
BLOCK = 1 << 20
"""Bytes read of a pipe at a time."""
CODEC_S = 0.1
"""Seconds by which a header may count too many: what codecs need before and after the sound."""


@contextmanager
def opened(path: StrPath) -> Iterator["SoundFile | Contained"]:
    """A recording, open for `read`; warns with a `DamagedWarning` where its header is wrong.

    Args:
        path: of a file or pipe; `-` is standard input.

    Raises:
        AudioError: nothing that can be read is there, or a length of 0 that cannot be put right.
        MissingDecoderError: it is of a kind that PyAV reads, which is not installed.
    """
    import soundfile

    with _bytes(path) as (source, regular):
        source.seek(0)
        if container := container_of(source.read(CONTAINER_HEAD)):
            with Contained(source, container, name_of(path)) as contained:
                yield contained
            return
        better = repaired(source, path)
        size = source.seek(0, os.SEEK_END)
        source.seek(0)
        with soundfile.SoundFile(better or (named(path) if regular else source)) as file:
            if not file.frames and size > HEAD:
                raise AudioError(
                    f"{path} holds 0 samples by its header, but {size} bytes: convert it to WAV"
                    " with a program that repairs it"
                )
            yield file


def check_count(path: StrPath, file: "SoundFile | Contained", came: int) -> None:
    """Warns where fewer samples came than the header announces, as of an MP3 that was cut off.

    Args:
        path: the recording's name.
        file: it, as `opened` gave it.
        came: frames that were decoded, up to the end.
    """
    if came + CODEC_S * file.samplerate < SLACK * file.frames < LARGEST:
        seconds = came / file.samplerate, file.frames / file.samplerate
        warn_cut(path, f"holds {seconds[0]:.2f} of the {seconds[1]:.2f} s {THAT}")


def check_source(path: StrPath) -> None:
    """To be asked before long work: whether there is something to read; nothing is read yet.

    Raises:
        AudioError: there is nothing, or what cannot hold a recording.
    """
    name, there = name_of(path), kind(path)
    if os.fspath(path) == STANDARD:
        try:
            there = kind_of(os.fstat(0).st_mode)
        except OSError as error:
            raise AudioError(f"expected an audio file, {name} is closed") from error
    if there not in ("file", "pipe"):
        state = {"": "not there", "device": "a device or terminal"}.get(there, f"a {there}")
        raise AudioError(f"expected an audio file, {name} is {state}: check the path")


def name_of(path: StrPath) -> str:
    """A path as people read it."""
    name = os.fspath(path)
    return "standard input" if name == STANDARD else name


@contextmanager
def _bytes(path: StrPath) -> Iterator[tuple[IO[bytes], bool]]:
    """The bytes at a path, seekable, and whether libsndfile may open the path itself."""
    check_source(path)
    name, standard = name_of(path), os.fspath(path) == STANDARD
    try:
        with open(0 if standard else path, "rb", closefd=not standard) as file:
            if kind_of(os.fstat(file.fileno()).st_mode) == "file" and not standard:
                yield file, True
                return
            with tempfile.SpooledTemporaryFile(IN_MEMORY) as kept:
                while block := file.read(BLOCK):
                    kept.write(block)
                    if kept.tell() > LONGEST_PIPE:
                        raise AudioError(
                            f"expected a recording, {name} gave {LONGEST_PIPE} bytes and no end"
                        )
                yield cast(IO[bytes], kept), False
    except OSError as error:
        raise AudioError(f"{name} cannot be read ({error.strerror or error})") from error
