"""Sung vowels with exact pitch: harmonics under formants, a vibrato, and a breath."""

import numpy as np
import numpy.typing as npt

RATE = 24_000
FORMANTS = {
    "a": (850, 1200, 2800),
    "e": (450, 2000, 2900),
    "i": (320, 2300, 3000),
    "o": (450, 850, 2800),
}
"""Hz, of a tenor; the width of each is a tenth of it and 60 Hz more."""
VIBRATO_HZ, VIBRATO = 5.5, 0.5
"""How fast, and semitones to either side."""


def sung(
    pitch: float, vowel: str = "a", seconds: float = 1.5, seed: int = 0, vibrato: float = VIBRATO
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """One note: the wave (N,) at 24 kHz, and its F0 at every sample, (N,) in Hz."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    f0 = pitch * 2 ** (vibrato / 12 * np.sin(2 * np.pi * VIBRATO_HZ * time + rng.uniform(0, 6)))
    phase = 2 * np.pi * np.cumsum(f0) / RATE
    wave = np.zeros(len(time))
    for number in range(1, int(8000 / pitch) + 1):
        level = sum(
            1 / (1 + ((number * f0 - place) / (60 + place / 10)) ** 2) for place in FORMANTS[vowel]
        )
        wave += (level + 0.02) * np.sin(number * phase)
    edge = int(0.03 * RATE)
    envelope = np.ones(len(time))
    envelope[:edge] = np.linspace(0, 1, edge)
    envelope[-edge:] = np.linspace(1, 0, edge)
    wave = 0.3 * wave / np.abs(wave).max() * envelope
    return (wave + 0.001 * rng.standard_normal(len(time))).astype(np.float32), f0
