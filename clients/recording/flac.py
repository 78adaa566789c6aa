"""A FLAC file that is whole at every moment: what a crash leaves behind opens in every program.

An encoder writes how long the file is when it is closed; a file that never was has no length, and
readers refuse it. Here the length of what is on the disk is written into the header every fraction
of a second (RFC 9639, section 8.2: 36 bits of STREAMINFO).
"""

import contextlib
import os
from pathlib import Path

import numpy as np
import soundfile

from rtvc.audio.samples import Samples

FRAME = 4_096
"""Samples of a frame, as the encoder chooses at its usual setting; it keeps the last one to
itself until another sample follows."""
TOTAL_AT = 18
"""Byte at which the 8 bytes begin whose last 36 bits are the number of samples."""
TOTAL_MASK = (1 << 36) - 1


class FlacFile:
    """A mono, 16-bit file that grows; `keep` makes all but its last frame safe.

    Args:
        path: of the file, which must not exist.
        rate: samples a second.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, path: Path, rate: int) -> None:
        self.path, self.rate, self.samples = path, rate, 0
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        self._kept = self._size = 0
        try:
            self._file = soundfile.SoundFile(
                self._descriptor, "w", rate, 1, "PCM_16", format="FLAC", closefd=False
            )
            self.keep()
        except (OSError, soundfile.SoundFileError) as error:
            os.close(self._descriptor)
            path.unlink()
            raise as_os_error(error, path) from error

    def write(self, block: Samples) -> None:
        """Appends block (N,), cut to [-1, 1].

        Raises:
            OSError: the disk took it not, or not all of it: call `rescue`.
        """
        try:
            self._file.write(np.clip(block, -1, 1))
        except (OSError, soundfile.SoundFileError, AssertionError) as error:
            raise as_os_error(error, self.path) from error
        self.samples += len(block)

    def keep(self) -> None:
        """From now on a crash, of the machine too, leaves everything but the last frame.

        Raises:
            OSError: the disk has no room.
        """
        self._kept = max(0, self.samples - 1) // FRAME * FRAME
        self._size = os.fstat(self._descriptor).st_size
        self._write_total(self._kept)
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Writes the last frame and the header.

        Raises:
            OSError: there was no room for it: what `keep` made safe is left.
        """
        try:
            self._file.close()
            if soundfile.info(self.path).frames != self.samples:
                raise OSError(f"{self.path} is not as long as what was written")
            os.fdatasync(self._descriptor)
        except (OSError, soundfile.SoundFileError) as error:
            self._cut()
            raise as_os_error(error, self.path) from error
        finally:
            os.close(self._descriptor)

    def rescue(self) -> None:
        """Closes after an error; what `keep` made safe is left, as a whole file. Never raises."""
        with contextlib.suppress(OSError, soundfile.SoundFileError, AssertionError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._cut()
        os.close(self._descriptor)

    def _cut(self) -> None:
        """Back to what was last made safe: half a frame at the end would be called damage."""
        os.ftruncate(self._descriptor, self._size)
        self._write_total(self._kept)
        self.samples = self._kept

    def _write_total(self, samples: int) -> None:
        word = int.from_bytes(os.pread(self._descriptor, 8, TOTAL_AT), "big")
        word = word & ~TOTAL_MASK | samples
        os.pwrite(self._descriptor, word.to_bytes(8, "big"), TOTAL_AT)


def as_os_error(error: BaseException, path: Path) -> OSError:
    """What a library says when the disk is full, as the error that it is."""
    if isinstance(error, OSError):
        return error
    return OSError(f"{path} cannot be written: {error or 'the disk took only a part of it'}")
