"""What is done to a microphone, and what is said about it."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from rtvc.clients.input.front import Front
from rtvc.clients.input.gain import LEAST_DB, MOST_DB, TARGET_DB, SlowGain
from rtvc.clients.input.meter import LOUD, NOTHING, QUIET, InputMeter
from rtvc.clients.input.suppressor import suppressor
from rtvc.clients.live.duplex_audio import level
from rtvc.errors import DependencyError

RATE = 16_000
ROOT = Path(__file__).parents[3]


def speech(seconds: float, db: float, noise_db: float = -80.0) -> np.ndarray:
    """Syllables of noise, four a second, at a level while they last; noise in between."""
    rng, at = np.random.default_rng(0), np.arange(int(seconds * RATE)) / RATE
    talking = np.sin(2 * np.pi * 2 * at) > 0
    levels = np.where(talking, 10 ** (db / 20), 10 ** (noise_db / 20))
    return (levels * rng.standard_normal(len(at)).clip(-3, 3)).clip(-1, 1).astype(np.float32)


@pytest.mark.parametrize(
    ("samples", "verdict"),
    [
        (np.zeros(5 * RATE, np.float32), NOTHING),
        (speech(5, -50.0), QUIET),
        (speech(5, -24.0), ""),
        (speech(5, -3.0), LOUD),
        (speech(5, -60.0, -60.0), ""),  # nobody speaks: the noise of a room
        (speech(1, -50.0), ""),  # too early to say
    ],
)
def test_the_meter_says_what_is_wrong(samples, verdict):
    meter = InputMeter(RATE)
    for start in range(0, len(samples), 333):
        meter(samples[start : start + 333])
    assert meter.verdict == verdict


def test_the_meter_forgets():
    meter = InputMeter(RATE)
    meter(speech(5, -3.0))
    assert meter.verdict == LOUD
    meter(speech(6, -24.0))
    assert meter.verdict == ""


@pytest.mark.parametrize("db", [-44.0, -36.0, -24.0, -16.0])
def test_the_slow_gain_brings_speech_to_one_level(db):
    gain, x = SlowGain(RATE), speech(30, db, db - 40)
    y = gain(x)
    spoken = y[-2 * RATE :][np.sin(2 * np.pi * 2 * np.arange(28 * RATE, 30 * RATE) / RATE) > 0]
    assert level(spoken) == pytest.approx(TARGET_DB, abs=1.5)
    assert np.abs(y).max() <= 0.98


def test_the_slow_gain_leaves_a_room_without_speech_alone_and_keeps_its_range():
    gain = SlowGain(RATE)
    gain(speech(30, -60.0, -60.0))
    assert gain.db == 0.0
    gain(speech(60, -58.0, -90.0))
    assert gain.db == MOST_DB
    gain(speech(60, -2.0, -60.0))
    assert LEAST_DB <= gain.db < MOST_DB


def test_the_slow_gain_does_not_depend_on_blocks():
    x, whole, cut = speech(8, -40.0), SlowGain(RATE), SlowGain(RATE)
    edges = [0, 1, 50, 51, 4_000, 9_999, 100_000, len(x)]
    parts = [cut(x[a:b]) for a, b in itertools.pairwise(edges)]
    np.testing.assert_allclose(np.concatenate(parts), whole(x), atol=1e-6)


class Half:
    """A suppressor that takes half of everything, 10 ms late."""

    late = 0.010

    def __init__(self, rate):
        self.kept = np.zeros(round(self.late * rate), np.float32)

    def __call__(self, block):
        both = np.concatenate([self.kept, 0.5 * block])
        self.kept = both[len(block) :]
        return both[: len(block)]


def test_treatments_are_switched_without_a_click():
    front = Front(RATE, Half)
    x = np.sin(2 * np.pi * 50 * np.arange(2 * RATE) / RATE).astype(np.float32) * 0.5
    parts = []
    for start in range(0, len(x), 400):
        if start in (RATE // 2, RATE):
            front.set(denoise=start == RATE // 2, agc=False)
        parts.append(front(x[start : start + 400]))
        assert front.late == (0.010 if RATE // 2 <= start < RATE else 0.0)
    y = np.concatenate(parts)
    assert len(y) == len(x)
    np.testing.assert_array_equal(y[: RATE // 2], x[: RATE // 2])
    np.testing.assert_allclose(y[RATE // 2 + 400 : RATE], 0.5 * x[RATE // 2 + 240 : RATE - 160])
    np.testing.assert_array_equal(y[RATE + 400 :], x[RATE + 400 :])
    steepest = np.abs(np.diff(x)).max()
    assert np.abs(np.diff(y)).max() < 2.5 * steepest


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_the_suppressor_takes_noise_out_and_declares_its_delay(rate):
    """Real speech in a fan's noise; the delay that is declared is where the speech is found."""
    try:
        one = suppressor(rate)
    except DependencyError as missing:
        pytest.skip(str(missing))
    wave, own = soundfile.read(ROOT / "examples" / "source.flac", dtype="float32")
    speech = soxr.resample(wave, own, rate).astype(np.float32)
    speech /= 2 * np.abs(speech).max()
    noise = 0.02 * np.random.default_rng(0).standard_normal(len(speech)).astype(np.float32)
    edges = range(0, len(speech), 357)
    clean = np.concatenate([one((speech + noise)[at : at + 357]) for at in edges])
    assert len(clean) == len(speech)
    size = 1 << (2 * len(speech)).bit_length()
    both = np.fft.rfft(clean, size) * np.conj(np.fft.rfft(speech, size))
    late = int(np.argmax(np.fft.irfft(both, size)[: rate // 5]))
    assert late / rate == pytest.approx(one.late, abs=0.0005) and one.late < 0.025
    rest = clean[late:] - speech[: len(clean) - late]
    quiet = np.abs(speech[: len(rest)]) < 1e-3
    assert level(rest[quiet]) < level(noise) - 8
