"""Whether a recording can be used: what came, what was wanted, what to do.

Refused: wrong shapes, nothing, NaN or infinity, samples far outside -1..1, less than half a second, silence, and
recordings that are clipped for much of their length. A little clipping is only warned about: the recording is usable,
the voice or the result may sound rough.
"""

import warnings

import numpy as np
import numpy.typing as npt

from rtvc.errors import AudioError

Samples = npt.NDArray[np.float32]

SHORTEST = 0.5
"""Seconds that a recording must last."""
SILENCE = -60.0
"""dBFS: a recording whose loudest tenth of a second is quieter holds no speech."""
CLIPPING_WARNS, CLIPPING_REFUSES = 1e-3, 5e-2
"""Shares of clipped samples: above the first the user is warned, above the second the recording is refused."""
FLAT = 3
"""Neighbouring samples at the same extreme that make a clipped peak."""
LOUDEST = 4.0
"""Floating-point recordings may exceed full scale by this factor; more means integers that were never scaled."""


class AudioWarning(UserWarning):
    """A recording that is usable but flawed."""


def clipped_share(wave: Samples) -> float:
    """The share of samples in flat-topped peaks: runs of FLAT or more equal samples near the highest level.

    wave (N,) or (N, C), before any resampling, which would round the tops.
    """
    columns = wave.reshape(len(wave), -1).T
    peak = np.abs(wave).max(initial=0)
    if peak < 0.1:
        return 0.0
    clipped = 0
    for column in columns:
        top = np.abs(column) >= 0.985 * peak
        same = top[1:] & top[:-1] & (np.diff(column) == 0)
        edges = np.diff(np.concatenate([[0], same.astype(np.int8), [0]]))
        runs = np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1) + 1
        clipped += int(runs[runs >= FLAT].sum())
    return clipped / max(1, wave.size)


def loudest_level(wave: Samples, rate: int) -> float:
    """Level of the loudest tenth of a second of wave (N,), in dB below a full-scale square wave (dBFS); -inf for zeros."""
    size = max(1, rate // 10)
    padded = np.pad(wave, (0, -len(wave) % size)).astype(np.float64)
    power = np.square(padded).reshape(-1, size).mean(1).max(initial=0)
    return float(10 * np.log10(power)) if power > 0 else -np.inf


def check_samples(wave: Samples, what: str) -> None:
    """Checks shape and values: wave (N,) or (N, C).

    Raises:
        AudioError: another shape, no samples, NaN or infinity, or samples that were never scaled to -1..1.
    """
    if wave.ndim not in (1, 2) or (wave.ndim == 2 and not 1 <= wave.shape[1] <= 64):
        raise AudioError(f"{what} has the shape {wave.shape}, (N,) mono or (N, C) with at most 64 channels was wanted: transpose it")
    if not wave.size:
        raise AudioError(f"{what} is empty: 0 samples came, at least {SHORTEST} s was wanted; record it again")
    bad = int(np.count_nonzero(~np.isfinite(wave)))
    if bad:
        raise AudioError(f"{what} holds {bad} samples that are NaN or infinite, finite numbers were wanted: export the recording again")
    peak = float(np.abs(wave).max())
    if peak > LOUDEST:
        raise AudioError(f"{what} reaches {peak:.6g}, samples from -1 to 1 were wanted: divide 16-bit integers by 32768")


def check_recording(wave: Samples, rate: int, what: str = "the recording") -> None:
    """Checks that wave (N,) or (N, C) at `rate` Hz is a recording that can be converted or used as a reference.

    Warns with an `AudioWarning` where it is slightly clipped.

    Raises:
        AudioError: as `check_samples`, or too short, silent, or clipped for much of its length.
    """
    check_samples(wave, what)
    seconds = len(wave) / rate
    if seconds < SHORTEST:
        raise AudioError(f"{what} lasts {seconds:.3f} s, at least {SHORTEST} s was wanted: record a longer one")
    mono = wave if wave.ndim == 1 else wave.mean(1)
    level = loudest_level(mono, rate)
    if level < SILENCE:
        if wave.ndim == 2 and max(loudest_level(channel, rate) for channel in wave.T) >= SILENCE:
            raise AudioError(f"{what} is silent when its {wave.shape[1]} channels are mixed, they cancel out: pass one channel alone")
        raise AudioError(
            f"{what} is silent: its loudest part is at {level:.0f} dBFS, speech above {SILENCE:.0f} dBFS was wanted; check the microphone"
        )
    share = clipped_share(wave)
    if share > CLIPPING_REFUSES:
        wanted = f"less than {CLIPPING_REFUSES:.0%} was wanted"
        raise AudioError(f"{what} is clipped: {share:.0%} of its samples are cut off, {wanted}; record it with less gain")
    if share > CLIPPING_WARNS:
        advice = "record it with less gain for a cleaner result"
        warnings.warn(f"{what} is slightly clipped ({share:.1%} of its samples): {advice}", AudioWarning, stacklevel=2)
