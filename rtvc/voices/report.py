"""How good a reference recording is: length of speech, noise, bandwidth, clipping, level, and what
to do about them."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rtvc.audio.check import clipped_share
from rtvc.audio.io import StrPath, decode, mono
from rtvc.audio.samples import Samples
from rtvc.printable import printable
from rtvc.voices.speech import find_speech

FRAME, HOP = 0.025, 0.010
"""Seconds of a frame whose level is measured, and between two of them."""
QUIETEST = -100.0
"""dBFS: frames are not taken to be quieter than this, so that digital silence has a level."""
CLEANEST = 80.0
"""dB: the highest ratio of speech to noise that is reported."""
RANGE = 6.0
"""dB by which speech must rise above the quietest frames to be told from noise."""
REACH = 50.0
"""dB below its strongest band down to which speech counts as present."""
LOOK_S = 20.0
"""Seconds that are searched for speech at a time: each stretch has its own noise."""
MOST_FRAMES = 6_000
"""Frames whose spectra the bandwidth is taken from, spread evenly over those with speech."""


@dataclass(frozen=True)
class Report:
    """What was measured of one recording.

    Attributes:
        path: of the file, as it was given.
        seconds: its length.
        speech: seconds of it that hold speech.
        snr: speech to noise, an estimate in dB.
        bandwidth: highest frequency with speech in it, in Hz.
        clipped: share of clipped samples.
        level: of the speech, in dBFS.
        advice: what to do, empty for a good reference.
        used: seconds of it that were looked at, None for all.
    """

    path: str
    seconds: float
    speech: float
    snr: float
    bandwidth: float
    clipped: float
    level: float
    advice: tuple[str, ...]
    used: float | None = None

    @property
    def grade(self) -> str:
        """`good`, `usable` (one or two things to do better) or `poor`."""
        return (
            "good"
            if not self.advice
            else "usable"
            if len(self.advice) < 3 and self.speech >= 1
            else "poor"
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON, rounded to what the estimates can bear."""
        figures = {
            name: round(value, 4)
            for name, value in asdict(self).items()
            if isinstance(value, float)
        }
        return {
            "path": printable(self.path, 1000),
            **figures,
            "grade": self.grade,
            "advice": list(self.advice),
        }


def report(path: StrPath) -> Report:
    """Measures a file.

    Raises:
        AudioError: it cannot be read.
    """
    wave, rate = decode(path)
    return measure(wave, rate, str(path))


def measure(wave: Samples, rate: int, path: str = "") -> Report:
    """Measures wave (N,) or (N, C) at its native `rate` in Hz; at least one frame long."""
    samples = mono(wave, path or "the recording")
    speech = [find_speech(part, rate) for part in looks(samples, rate)]
    figures = figures_of(samples, rate) | {
        "speech": float(min(len(samples) / rate, sum(part.seconds for part in speech))),
        "clipped": clipped_share(wave),
    }
    return Report(path, **figures, advice=tuple(advise(**figures)))


def looks(samples: Samples, rate: int) -> list[Samples]:
    """samples (N,) in stretches that are searched for speech, the last as long as any."""
    count = max(1, int(len(samples) / rate / LOOK_S))
    return np.array_split(samples, count)


def figures_of(samples: Samples, rate: int) -> dict[str, float]:
    """Length, noise, bandwidth and level of samples (N,); whatever rises above the noise counts as
    speech here."""
    size, step = max(1, round(FRAME * rate)), max(1, round(HOP * rate))
    samples = np.pad(samples, (0, max(0, size - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[::step]
    blocks = np.array_split(frames, max(1, len(frames) // MOST_FRAMES))
    powers = np.concatenate([np.square(block, dtype=np.float64).mean(1) for block in blocks])
    levels = np.maximum(10 * np.log10(np.maximum(powers, 1e-30)), QUIETEST)
    quiet, loud = np.percentile(levels, [10, 95])
    speech = levels > quiet + max(RANGE, 0.35 * (loud - quiet))
    noise_power = 10 ** (quiet / 10)
    power = powers[speech].mean() if speech.any() else noise_power
    chosen = np.flatnonzero(speech) if speech.any() else np.arange(len(frames))
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(len(chosen), MOST_FRAMES)).astype(int)]
    return {
        "seconds": len(samples) / rate,
        "snr": float(
            np.clip(10 * np.log10(max(power - noise_power, 1e-30) / noise_power), 0, CLEANEST)
        ),
        "bandwidth": bandwidth(frames[chosen].astype(np.float64), rate),
        "level": float(max(QUIETEST, 10 * np.log10(max(power, 1e-30)))),
    }


def bandwidth(frames: np.ndarray[Any, np.dtype[np.float64]], rate: int) -> float:
    """Highest frequency in Hz that the loudest frames (T, frame) bring above REACH dB below their
    strongest band of 250 Hz.

    The 95th percentile over frames is taken in each band, so that a single click is not taken for
    speech.
    """
    window = np.hanning(frames.shape[1] + 2)[1:-1]
    power = np.square(np.abs(np.fft.rfft(frames * window)))
    width = max(1, round(250 * frames.shape[1] / rate))
    bands = power[:, : power.shape[1] // width * width].reshape(len(power), -1, width).mean(-1)
    strength = np.percentile(bands, 95, axis=0)
    present = np.flatnonzero(strength > max(strength.max() * 10 ** (-REACH / 10), 1e-20))
    return (
        float(min(rate / 2, (present[-1] + 1) * width * rate / frames.shape[1]))
        if len(present)
        else 0.0
    )


def advise(
    *, seconds: float, speech: float, snr: float, bandwidth: float, clipped: float, level: float
) -> list[str]:
    """What to do about each figure that is not what a reference should have; the arguments are
    those of `Report`."""
    advice = []
    if speech < 5:
        advice.append(
            f"{speech:.1f} s of speech in {seconds:.1f} s: give 5 to 20 s, or several recordings"
        )
    if snr < 20:
        advice.append(
            f"speech is only {snr:.0f} dB above the noise: record in a quieter room, closer to the"
            " microphone"
        )
    if bandwidth < 6000:
        advice.append(
            f"nothing above {bandwidth / 1000:.1f} kHz: use a recording that did not come through a"
            " telephone or a headset"
        )
    if clipped > 1e-3:
        advice.append(f"{clipped:.1%} of the samples are clipped: record with less gain")
    if level < -40:
        advice.append(f"speech at {level:.0f} dBFS is very quiet: record with more gain")
    return advice
