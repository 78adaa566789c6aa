"""A few seconds of speech labelled with units, for the tests: two vowels and a pause, each its own
unit and phoneme."""

from pathlib import Path

import numpy as np

from rtvc.data.utterance import UNIT_RATE, Utterance, save_utterance

PITCH = {"anna": 210.0, "bert": 110.0, "carl": 140.0, "dora": 240.0}
PLACES = (0, 700, 1500)
"""Formant of each sound in Hz, 0 for the pause."""
PHONEMES = (0, 43, 63)
"""Tokens of the same sounds."""


def utterance(speaker: str, seed: int, seconds: float = 2.0, text: str = "ab") -> Utterance:
    """Sounds of 0.2 s in random order."""
    rng = np.random.default_rng(seed)
    pitch = PITCH.get(speaker, 150.0) * (1 + 0.05 * rng.random())
    frames = int(seconds * UNIT_RATE)
    sounds = np.repeat(rng.integers(0, 3, frames // 10 + 1), 10)[:frames]
    time = np.arange(int(seconds * 24_000)) / 24_000
    harmonics = np.arange(1, int(4000 / pitch))
    waves = [np.zeros(len(time))]
    for place in PLACES[1:]:
        levels = np.exp(-(((harmonics * pitch - place) / 400) ** 2)) + 0.03
        waves.append(
            (levels[:, None] * np.sin(2 * np.pi * harmonics[:, None] * pitch * time)).sum(0)
        )
    which = np.repeat(sounds, 24_000 // UNIT_RATE)
    wave = np.choose(which, waves)
    wave = 0.3 * wave / np.abs(wave).max() + 0.003 * rng.standard_normal(len(time))
    times = (np.arange(int(seconds * 80)) + 0.5) / 80
    voiced = sounds[np.minimum((times * UNIT_RATE).astype(int), frames - 1)] > 0
    f0 = np.where(voiced, pitch, 0).astype(np.float32)
    units = np.stack([sounds * 7, sounds * 5 + 1])
    phonemes = np.array(PHONEMES)[sounds]
    audio = (wave * 32767).astype(np.int16)
    return Utterance(audio, units, phonemes, f0, voiced.astype(np.float32), speaker, 16_000.0, text)


def make_unit_speech(folder: Path, count: int = 3) -> Path:
    """`count` utterances of each speaker, and one corrupt file."""
    folder.mkdir(parents=True)
    for number in range(count):
        for speaker in PITCH:
            save_utterance(folder / f"{speaker}_{number}.npz", utterance(speaker, number))
    whole = (folder / "anna_0.npz").read_bytes()
    (folder / "cut_off.npz").write_bytes(whole[: len(whole) // 2])
    return folder
