"""What was said and what was heard, side by side in two FLAC files, sample on sample.

Every stretch comes with its position on one time line: what was left out of either becomes silence
there, so the files line up whatever was dropped, and a conversion is where its source is although
it came later. Files are written by a thread of their own behind a bounded queue: audio never waits
for a disk.
"""

import queue
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from rtvc.clients.recording.flac import FlacFile
from rtvc.engine.callback.placing import Stretch
from rtvc.errors import OutputError

SOURCE, CONVERSION = "source", "conversion"
"""Ends of the two files' names: what was said, and what was heard."""
KEEP_S = 0.4
"""Seconds after which what was written is made safe; a frame of the encoder comes on top."""
WAITING = 1_024
"""Stretches that may wait for the disk: ten seconds in blocks of 10 ms."""
SILENCE_S = 10.0
"""Seconds of silence that are written at a time."""


class Track:
    """One file and where it is on the time line.

    Args:
        file: that is written.
        origin: the position of its first sample.
    """

    def __init__(self, file: FlacFile, origin: int) -> None:
        self.file, self.origin = file, origin

    def place(self, stretch: Stretch) -> None:
        """Writes a stretch where it belongs: after silence where something is missing before it,
        and without what was there already."""
        at = self.origin + self.file.samples
        self.fill(stretch.at)
        self.file.write(stretch.samples[max(0, at - stretch.at) :])

    def fill(self, until: int) -> None:
        """Silence up to a position."""
        while (missing := until - self.origin - self.file.samples) > 0:
            count = min(missing, int(SILENCE_S * self.file.rate))
            self.file.write(np.zeros(count, np.float32))


class Take:
    """A recording from its start to its stop; everything here runs in its own thread, but for
    `put` and `stop`.

    Args:
        folder: made if it is not there.
        rate_in: of what is said, in Hz.
        rate_out: of what is heard.

    Raises:
        OutputError: the files cannot be made.
    """

    def __init__(self, folder: Path, rate_in: int, rate_out: int) -> None:
        self.folder, self.rates = folder, (rate_in, rate_out)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.files = pair(folder, self.rates)
        except OSError as error:
            raise OutputError(
                f"nothing can be recorded to {folder} ({error.strerror or error}): name another"
                " folder"
            ) from error
        self.problem, self.lost, self.seconds = "", 0, 0.0
        self._tracks: list[Track] | None = None
        self._waiting: queue.Queue[tuple[Stretch, list[Stretch]] | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._write, name="rtvc-recorder", daemon=True)
        self._thread.start()

    def put(self, source: Stretch, output: list[Stretch], *, wait: bool = False) -> None:
        """Queues what was said and what was heard meanwhile.

        When the disk is too slow it is counted and let go, unless told to `wait`: its place is
        silent then.
        """
        if self.problem:
            return
        try:
            self._waiting.put((source, output), block=wait)
        except queue.Full:
            self.lost += len(source.samples)

    def stop(self) -> None:
        """Writes what still waits and closes the files."""
        self._waiting.put(None)
        self._thread.join()

    def _write(self) -> None:
        safe = time.monotonic()
        try:
            while (item := self._waiting.get()) is not None:
                self._place(*item)
                if time.monotonic() - safe > KEEP_S:
                    for file in self.files:
                        file.keep()
                    safe = time.monotonic()
            self._finish()
        except OSError as error:
            # The conversation goes on: what is safe is kept, and whoever asks is told.
            self.problem = (
                f"recording stopped after {self.seconds:.0f} s: {error.strerror or error}; what"
                f" came before is in {self.folder}"
            )
            for file in self.files:
                file.rescue()
            while self._waiting.get() is not None:
                pass

    def _place(self, source: Stretch, output: list[Stretch]) -> None:
        if self._tracks is None:
            rate_in, rate_out = self.rates
            origins = (source.at, round(source.at * rate_out / rate_in))
            self._tracks = [Track(*both) for both in zip(self.files, origins, strict=True)]
        self._tracks[0].place(source)
        for stretch in output:
            self._tracks[1].place(stretch)
        self.seconds = self.files[0].samples / self.rates[0]

    def _finish(self) -> None:
        """Both files end together: what was not converted yet is silent. Of a take in which
        nothing was said nothing is left."""
        if self._tracks is None:
            for file in self.files:
                file.rescue()
                file.path.unlink()
            self.files.clear()
        else:
            source, conversion = self._tracks
            length = -(-source.file.samples * self.rates[1] // self.rates[0])
            conversion.fill(conversion.origin + length)
        while self.files:
            self.files.pop().close()


def pair(folder: Path, rates: tuple[int, int]) -> list[FlacFile]:
    """Two new files that bear the time: `20261125-201530-source.flac` and `…-conversion.flac`.

    Raises:
        OSError: they cannot be made.
    """
    name, number = time.strftime("%Y%m%d-%H%M%S"), 1
    while True:
        stem = name if number == 1 else f"{name}-{number}"
        paths = [folder / f"{stem}-{end}.flac" for end in (SOURCE, CONVERSION)]
        try:
            first = FlacFile(paths[0], rates[0])
        except FileExistsError:
            number += 1
            continue
        try:
            return [first, FlacFile(paths[1], rates[1])]
        except OSError:
            first.rescue()
            paths[0].unlink()
            raise


class Recorder:
    """Recordings of one conversation, one after the other.

    Args:
        folder: that they are written to.
        rate_in: of what is said, in Hz.
        rate_out: of what is heard.
    """

    def __init__(self, folder: Path, rate_in: int, rate_out: int) -> None:
        self.folder, self.rates = folder, (rate_in, rate_out)
        self.take: Take | None = None
        self.problem = ""

    @property
    def on(self) -> bool:
        """Whether something is being recorded."""
        return self.take is not None and not self.take.problem

    def start(self) -> None:
        """Begins, unless it has.

        Raises:
            OutputError: nothing can be written there.
        """
        if not self.on:
            self.stop()
            self.problem = ""
            self.take = Take(self.folder, *self.rates)

    def stop(self) -> None:
        """Ends, unless it has; everything is on the disk afterwards."""
        take, self.take = self.take, None
        if take is not None:
            take.stop()
            self.problem = take.problem

    def __call__(self, source: Stretch, output: list[Stretch], *, wait: bool = False) -> None:
        """See `Take.put`; nothing happens while nothing is recorded."""
        if self.take is not None:
            self.take.put(source, output, wait=wait)

    def status(self) -> dict[str, Any]:
        """Plain values: whether it is on, for how many seconds, what the disk was too slow for,
        and what went wrong."""
        take = self.take
        return {
            "on": self.on,
            "folder": str(self.folder),
            "seconds": round(take.seconds, 1) if take else 0.0,
            "lost_ms": round(1000 * take.lost / self.rates[0], 1) if take else 0.0,
            "problem": take.problem if take else self.problem,
        }
