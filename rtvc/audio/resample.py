"""Changing the sample rate of whole recordings, by soxr.

Streams do not use it: soxr's own streams hold back up to 39 ms between 48 and 24 kHz, on the way in
and again on the way out. The edges of a session (`rtvc.engine.streams.resampler`) resample sample
by sample instead.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from rtvc.audio.samples import Samples as Samples
from rtvc.checks import real
from rtvc.errors import AudioError

LOWEST_RATE, HIGHEST_RATE = 4_000, 768_000


def check_rate(rate: object, highest: int = HIGHEST_RATE) -> int:
    """A sample rate in Hz, if it is one; whole floats are, as sound systems give them.

    Raises:
        AudioError: no whole number from 4 kHz to `highest` Hz.
    """
    expected = f"expected a sample rate that is a whole number from {LOWEST_RATE} to {highest} Hz"
    hertz = real(rate)
    if hertz is None:
        raise AudioError(
            f"{expected}, got {type(rate).__name__}: pass what the file or the device says"
        )
    if not LOWEST_RATE <= hertz <= highest or hertz != int(hertz):
        raise AudioError(f"{expected}, got {rate} Hz: check the device or the file")
    return int(hertz)


def resampled_length(samples: int, source: int, target: int) -> int:
    """How many samples `samples` of them become: samples * target / source, rounded, halves
    upwards."""
    return (2 * samples * target + source) // (2 * source)


def resample(wave: Samples, source: int, target: int) -> Samples:
    """A whole recording at another rate, by soxr in its high quality: linear phase, aligned with
    the input.

    Args:
        wave: (N,) or (N, C) at `source` Hz.
        source: rate of the input in Hz.
        target: rate of the output in Hz.

    Returns:
        float32, (M,) or (M, C) with M = `resampled_length(N, source, target)`.
    """
    import soxr

    wave = np.ascontiguousarray(wave, dtype=np.float32)
    if check_rate(source) == check_rate(target):
        return wave
    resampled: Samples = soxr.resample(wave, source, target, quality="HQ")
    return resampled


def resampled(pieces: Iterable[Samples], source: int, target: int) -> Iterator[Samples]:
    """`resample` of a recording that comes in pieces (N,): what is ready of it after each, (M,)
    float32.

    The pieces add up to `resampled_length` of what came.
    """
    import soxr

    if check_rate(source) == check_rate(target):
        yield from pieces
        return
    stream = soxr.ResampleStream(source, target, 1, dtype="float32", quality="HQ")
    came = given = 0
    for piece in pieces:
        came += len(piece)
        ready = stream.resample_chunk(np.ascontiguousarray(piece, np.float32))
        given += len(ready)
        yield ready
    rest = stream.resample_chunk(np.zeros(0, np.float32), last=True)
    due = resampled_length(came, source, target) - given
    yield np.pad(rest, (0, max(0, due - len(rest))))[: max(0, due)]
