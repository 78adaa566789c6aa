"""Arrays that are costly to make, kept on disk and mapped into memory when they are needed
again."""

import contextlib
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rtvc.files import write

Array = npt.NDArray[Any]


def key_of(path: Path, *settings: object) -> str:
    """A name for what is derived from a file: changes when the file or a setting does."""
    status = path.stat()
    text = "\0".join(map(str, (path.resolve(), status.st_size, status.st_mtime_ns, *settings)))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class Cache:
    """Arrays by key: on disk in `folder` if there is one, and the last used ones in memory up to
    `megabytes`. Thread-safe."""

    def __init__(self, folder: Path | None = None, megabytes: float = 512.0) -> None:
        self.folder, self.limit = folder, int(megabytes * 2**20)
        self.kept: OrderedDict[str, Array] = OrderedDict()
        self.size = 0
        self.lock = threading.Lock()

    def get(self, key: str, make: Callable[[], Array]) -> Array:
        """The array, made unless it is known; treat it as read-only."""
        with self.lock:
            if key in self.kept:
                self.kept.move_to_end(key)
                return self.kept[key]
        array = self._from_disk(key)
        if array is None:
            array = make()
            self._to_disk(key, array)
        self._keep(key, array)
        return array

    def _keep(self, key: str, array: Array) -> None:
        if isinstance(array, np.memmap):
            return  # the system's page cache holds it
        with self.lock:
            if key not in self.kept and array.nbytes <= self.limit:
                self.kept[key] = array
                self.size += array.nbytes
            while self.size > self.limit:
                self.size -= self.kept.popitem(last=False)[1].nbytes

    def _path(self, key: str) -> Path | None:
        return self.folder / key[:2] / f"{key}.npy" if self.folder else None

    def _from_disk(self, key: str) -> Array | None:
        path = self._path(key)
        if path is None or not path.exists():
            return None
        try:
            stored: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError):
            return None  # cut off by an earlier crash of the machine: made again
        return stored

    def _to_disk(self, key: str, array: Array) -> None:
        path = self._path(key)
        if path is None:
            return
        # A full disk makes training slower, it does not end it.
        with contextlib.suppress(OSError):
            write(path, lambda sink: np.save(sink, array, allow_pickle=False))
