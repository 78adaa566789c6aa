"""Arrays in files, .npy and .npz, for whoever does not trust them: nothing is unpickled, and no
array is made before its head agrees with the bytes that follow (`numpy.load` believes it)."""

import io
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtvc.errors import AudioError

Array = NDArray[Any]

LARGEST = 1 << 30
"""Bytes of an array: three hours of samples."""
HEADERS: Any = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
"""Readers of the head of an array, by the version of its format."""
DAMAGED = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading an archive may raise that is damaged, encrypted, or none."""


class Arrays:
    """The arrays of an .npz, read one by one."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        self.names = [name.removesuffix(".npy") for name in archive.namelist()]

    def shape(self, name: str) -> tuple[int, ...]:
        """Of an array that is not read."""
        size = self._size(name)
        with self.archive.open(f"{name}.npy") as file:
            return head_of(file, size)[0]

    def __getitem__(self, name: str) -> Array:
        size = self._size(name)
        return array_of(io.BytesIO(self.archive.read(f"{name}.npy")), size)

    def _size(self, name: str) -> int:
        return bounded(self.archive.getinfo(f"{name}.npy").file_size)


def bounded(size: int) -> int:
    """Bytes of an array, if they are not too many.

    Raises:
        ValueError: they are.
    """
    if size > LARGEST:
        raise ValueError(f"expected at most {LARGEST} bytes in an array, got {size}")
    return size


def head_of(file: Any, size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order (by columns?) and type of an array whose file of so many bytes is read behind
    its head.

    Raises:
        ValueError: it is no array, or another number of bytes follows.
    """
    version = np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
    if version not in HEADERS:
        raise ValueError(f"expected version 1.0 or 2.0 of the format, got {version}")
    head: tuple[tuple[int, ...], bool, np.dtype[Any]] = HEADERS[version](file)
    shape, _, dtype = head
    left = size - file.tell()
    if (
        dtype.hasobject
        or not dtype.itemsize
        or min(shape, default=0) < 0
        or math.prod(shape) * dtype.itemsize != left
    ):
        raise ValueError(f"expected {left} bytes of an array, got {shape} of {dtype}")
    return head


def array_of(file: io.BytesIO, size: int) -> Array:
    """The array in a file of so many bytes.

    Raises:
        ValueError: there is none.
    """
    shape, by_columns, dtype = head_of(file, size)
    if not math.prod(shape):
        return np.empty(shape, dtype)
    array: Array = np.frombuffer(file.getbuffer(), dtype, offset=file.tell())
    return array.reshape(shape, order="F" if by_columns else "C")


def read_array(path: Path) -> Array:
    """One array of an .npy.

    Raises:
        AudioError: it cannot be read.
    """
    try:
        size = bounded(path.stat().st_size)
        return array_of(io.BytesIO(path.read_bytes()), size)
    except DAMAGED as error:
        raise AudioError(f"{path} cannot be read as an array ({error}): make it again") from error


@contextmanager
def opened_arrays(file: Path | io.BytesIO) -> Iterator[Arrays]:
    """The arrays of an .npz of labelled speech, for as long as the block runs.

    Raises:
        AudioError: it cannot be read, by the block neither.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            yield Arrays(archive)
    except DAMAGED as error:
        name = file if isinstance(file, Path) else "a piece"
        raise AudioError(
            f"{name} cannot be read as labelled speech ({error}): make it again"
        ) from error


def read_arrays(path: Path) -> dict[str, Array]:
    """All arrays of an .npz of labelled speech.

    Raises:
        AudioError: it cannot be read.
    """
    with opened_arrays(path) as arrays:
        return {name: arrays[name] for name in arrays.names}
