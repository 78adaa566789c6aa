"""Whether a recording can be used: what was expected, what came, what to do.

Refused: wrong shapes, nothing, NaN or infinity, samples far outside -1..1, less than half a second,
silence, and recordings that are clipped for much of their length. A little clipping is only warned
about: the recording is usable, the voice or the result may sound rough.
"""

import warnings

import numpy as np

from rtvc.audio.channels import Mix
from rtvc.audio.intake import Intake
from rtvc.audio.samples import Samples
from rtvc.errors import AudioError

SHORTEST = 0.5
"""Seconds that a recording must last."""
SILENCE = -60.0
"""dBFS: a recording whose loudest tenth of a second is quieter holds no speech."""
CLIPPING_WARNS, CLIPPING_REFUSES = 1e-3, 5e-2
"""Shares of clipped samples: above the first the user is warned, above the second the recording is
refused."""
LOUDEST = 4.0
"""Floating-point recordings may exceed full scale by this factor; more means integers that were
never scaled."""


class AudioWarning(UserWarning):
    """A recording that is usable but flawed."""


def taken_in(wave: Samples, rate: int) -> Intake:
    """wave (N,) or (N, C) at `rate` Hz, looked through once, block by block."""
    columns = wave.reshape(len(wave), -1)
    intake = Intake(columns.shape[1], rate)
    intake.add(columns)
    return intake


def clipped_share(wave: Samples) -> float:
    """The share of samples in flat-topped peaks: runs of three or more equal samples near the
    highest level.

    wave (N,) or (N, C), before any resampling, which would round the tops.
    """
    return taken_in(wave, 1000).clipped


def check_samples(wave: Samples, what: str) -> None:
    """Checks shape and values: wave (N,) or (N, C).

    Raises:
        AudioError: another shape, no samples, NaN or infinity, or samples that were never scaled to
            -1..1.
    """
    if wave.ndim not in (1, 2) or (wave.ndim == 2 and not 1 <= wave.shape[1] <= 64):
        raise AudioError(
            "expected (N,) mono or (N, C) with at most 64 channels,"
            f" {what} has the shape {wave.shape}: transpose it"
        )
    if not wave.size:
        raise AudioError(
            f"expected at least {SHORTEST} s, {what} is empty (0 samples): record it again"
        )
    peak = max(
        float(wave.max()), -float(wave.min())
    )  # NaN if there is one; no copy of the recording is made
    if not np.isfinite(peak):
        check_values(
            sum(int(np.count_nonzero(~np.isfinite(part))) for part in np.array_split(wave, 64)),
            0.0,
            what,
        )
    check_values(0, peak, what)


def check_values(bad: int, peak: float, what: str) -> None:
    """Refuses `bad` samples that are not finite, and levels of samples that were never scaled.

    Raises:
        AudioError: for either.
    """
    if bad:
        raise AudioError(
            f"expected finite numbers, {what} holds {bad} samples that are NaN or infinite:"
            " export the recording again"
        )
    if peak > LOUDEST:
        raise AudioError(
            f"expected samples from -1 to 1, {what} reaches {peak:.6g}: divide 16-bit integers"
            " by 32768"
        )


def check_recording(wave: Samples, rate: int, what: str = "the recording") -> None:
    """Checks that wave (N,) or (N, C) at `rate` Hz is a recording that can be converted or used as
    a reference.

    Warns with an `AudioWarning` where it is slightly clipped.

    Raises:
        AudioError: as `check_samples`, or too short, silent, or clipped for much of its length.
    """
    check_samples(wave, what)
    check_intake(taken_in(wave, rate), what)


def check_intake(intake: Intake, what: str) -> None:
    """`check_recording`, of a recording that was looked through block by block.

    Raises:
        AudioError: as `check_recording`.
    """
    check_values(intake.bad, intake.peak, what)
    seconds = intake.frames / intake.rate
    if not intake.frames:
        raise AudioError(
            f"expected at least {SHORTEST} s, {what} is empty (0 samples): record it again"
        )
    if seconds < SHORTEST:
        raise AudioError(
            f"expected at least {SHORTEST} s, {what} lasts {seconds:.3f} s: record a longer one"
        )
    if (level := intake.level) < SILENCE:
        raise AudioError(
            f"expected speech above {SILENCE:.0f} dBFS, {what} is silent: its loudest part is at"
            f" {level:.0f} dBFS; check the microphone"
        )
    share = intake.clipped
    if share > CLIPPING_REFUSES:
        raise AudioError(
            f"expected less than {CLIPPING_REFUSES:.0%} of the samples cut off, {what} is clipped"
            f" in {share:.0%}: record it with less gain"
        )
    if share > CLIPPING_WARNS:
        advice = "record it with less gain for a cleaner result"
        warnings.warn(
            f"{what} is slightly clipped ({share:.1%} of its samples): {advice}",
            AudioWarning,
            stacklevel=2,
        )


def check_mix(mix: Mix, what: str) -> None:
    """Warns with an `AudioWarning` where channels cancel each other and one of them was taken."""
    if mix.lost:
        warnings.warn(
            f"{what}: its channels cancel each other, mixed they would be {mix.lost:.0f} dB quieter"
            f" than the loudest; that one, channel {int(mix.weights.argmax()) + 1}, is used: pass"
            " another alone if it is the wrong one",
            AudioWarning,
            stacklevel=2,
        )
