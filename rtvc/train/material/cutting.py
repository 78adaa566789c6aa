"""Long recordings as pieces of a sentence or two, cut where nobody speaks."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rtvc.audio.io import decode, mono, write
from rtvc.audio.resample import Samples
from rtvc.data.manifest import Entry

LONGEST = 20.0
"""Seconds above which a recording is cut."""
SHORTEST, USUAL = 5.0, 15.0
"""Seconds from the last cut between which the next one is looked for."""
PAUSE = 0.2
"""Seconds over which loudness is judged: a cut lies in the middle of the quietest such stretch."""


def pieces(entry: Entry, folder: Path) -> list[Entry]:
    """A recording as it is, or the pieces of one longer than LONGEST, written into a folder; which
    words a piece holds is not known.

    Raises:
        AudioError: it cannot be read.
    """
    if entry.seconds <= LONGEST:
        return [entry]
    wave, rate = decode(entry.path)
    samples = mono(wave)
    edges = [0, *cuts(samples, rate), len(samples)]
    parts = []
    for number, (start, stop) in enumerate(pairwise(edges)):
        path = folder / f"{entry.path.stem}-{number:03}.flac"
        folder.mkdir(parents=True, exist_ok=True)
        write(path, samples[start:stop], rate)
        parts.append(
            replace(entry, path=path.resolve(), seconds=(stop - start) / rate, text="", phonemes="")
        )
    return parts


def cuts(wave: Samples, rate: int) -> Iterator[int]:
    """wave (N,) -> the samples at which it is cut."""
    half = max(1, round(PAUSE * rate / 2))
    loud = loudness(wave, half)
    start = 0
    while (len(wave) - start) / rate > USUAL:
        first = start + round(SHORTEST * rate)
        last = min(start + round(USUAL * rate), len(wave) - round(SHORTEST * rate))
        start = first + int(loud[first : max(last, first + 1)].argmin())
        yield start


def loudness(wave: Samples, half: int) -> npt.NDArray[np.float64]:
    """wave (N,) -> its energy within `half` samples of each, (N,)."""
    total = np.concatenate([[0.0], np.cumsum(np.square(wave, dtype=np.float64))])
    at = np.arange(len(wave))
    energy: npt.NDArray[np.float64] = (
        total[np.minimum(at + half, len(wave))] - total[np.maximum(at - half, 0)]
    )
    return energy
