"""Input and output of a live conversion on disk."""

import queue
import threading
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

Samples = NDArray[np.float32]

RECORDED = ("input.wav", "output.wav")
"""What a recorder writes into its folder: what was said, and what was heard."""


class Recorder:
    """Writes input and output to two files, from a thread of its own behind a bounded queue.

    Args:
        folder: for the two files.
        rate_in: of the input, in Hz.
        rate_out: of the output, in Hz.
    """

    def __init__(self, folder: Path, rate_in: int, rate_out: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.files = [
            soundfile.SoundFile(folder / name, "w", rate, 1, "PCM_16")
            for name, rate in zip(RECORDED, (rate_in, rate_out), strict=True)
        ]
        self.waiting: queue.Queue[tuple[Samples, Samples] | None] = queue.Queue(512)
        self.lost = 0
        self.thread = threading.Thread(target=self._write, name="rtvc-recorder", daemon=True)
        self.thread.start()

    def write(self, block: Samples, converted: Samples) -> None:
        """Queues a stretch of both; when the disk is too slow, it is counted in `lost` and left
        out."""
        try:
            self.waiting.put_nowait((block, converted))
        except queue.Full:
            self.lost += 1

    def close(self) -> None:
        """Writes what still waits and closes the files."""
        self.waiting.put(None)
        self.thread.join()

    def _write(self) -> None:
        while (item := self.waiting.get()) is not None:
            for file, samples in zip(self.files, item, strict=True):
                file.write(np.clip(samples, -1, 1))
        for file in self.files:
            file.close()
