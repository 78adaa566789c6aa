"""Recordings that cannot be used say so, and what to do."""

import math
import warnings

import numpy as np
import pytest

from rtvc.audio.check import AudioWarning, check_recording, clipped_share, taken_in
from rtvc.errors import AudioError

RATE = 16000


def speech_like(seconds: float = 2.0, gain: float = 0.3) -> np.ndarray:
    """Noise whose loudness comes and goes four times a second, (N,) float32, peaks of about
    `gain`."""
    at = np.arange(int(RATE * seconds)) / RATE
    noise = np.random.default_rng(0).standard_normal(len(at)) / 4
    return (gain * noise * (1 - np.cos(8 * math.pi * at)) / 2).astype(np.float32)


def test_a_good_recording_passes_without_a_word() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_recording(speech_like(), RATE)
        check_recording(np.stack([speech_like()] * 2, 1), RATE)
        check_recording(
            0.9 * np.sin(2 * math.pi * 100 * np.arange(48000) / 48000).astype(np.float32), 48000
        )
        rounded = np.round(speech_like(gain=0.9) * 32767) / 32768
        check_recording(rounded.astype(np.float32), RATE)


@pytest.mark.parametrize(
    ("wave", "wanted"),
    [
        (
            np.zeros((2, 2, 2)),
            r"expected \(N,\) mono or \(N, C\) .* take three has the shape \(2, 2, 2\)",
        ),
        (np.zeros((2, 16000)), r"at most 64 channels, take three has .*: transpose it"),
        (np.zeros(0), r"take three is empty \(0 samples\)"),
        (np.zeros((0, 2)), "is empty"),
        (np.where(np.arange(16000) == 7, np.nan, 0.1), "holds 1 samples that are NaN or infinite"),
        (np.where(np.arange(16000) < 3, np.inf, 0.1), "holds 3 samples"),
        (speech_like() * 32768, "divide 16-bit integers by 32768"),
        (
            speech_like(0.4),
            "expected at least 0.5 s, take three lasts 0.400 s: record a longer one",
        ),
        (np.zeros(16000), "is silent: its loudest part is at -inf dBFS"),
        (speech_like() * 1e-4, r"is silent: .* check the microphone"),
        (
            np.clip(speech_like() * 9, -0.3, 0.3),
            (
                r"expected less than 5% of the samples cut off, take three is clipped in \d+%:"
                r" record it with less gain"
            ),
        ),
    ],
)
def test_unusable_recordings_are_refused(wave: np.ndarray, wanted: str) -> None:
    with pytest.raises(AudioError, match=wanted):
        check_recording(wave.astype(np.float32), RATE, "take three")


def test_a_little_clipping_is_warned_about() -> None:
    wave = speech_like(gain=0.9)
    with pytest.warns(
        AudioWarning, match=r"slightly clipped \(\d\.\d% of its samples\): record it with less gain"
    ):
        check_recording(np.clip(wave, -0.3 * wave.max(), 0.3 * wave.max()), RATE)


def test_the_share_of_clipped_samples() -> None:
    wave = np.full(1000, 0.0, np.float32)
    wave[100:110] = 0.5
    wave[200:203] = -0.5
    wave[300:302] = 0.5  # two samples are no flat top
    assert clipped_share(wave) == pytest.approx(13 / 1000)
    assert clipped_share(np.stack([wave, np.zeros_like(wave)], 1)) == pytest.approx(13 / 2000)
    assert clipped_share(wave / 10) == 0, "the flat top of a quiet recording is quantisation"


def test_the_level_is_that_of_the_loudest_part() -> None:
    wave = np.zeros(16000, np.float32)
    wave[4800:6400] = 0.1
    assert taken_in(wave, RATE).level == pytest.approx(-20)
    assert taken_in(np.zeros(10, np.float32), RATE).level == -math.inf
