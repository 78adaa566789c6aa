"""A few seconds of labelled speech for the tests: vowels over the speaker's pitch, with exact
labels."""

from pathlib import Path

import numpy as np

from rtvc.data.labelled import CONTENT, TEACHER, Utterance, save_utterance

PITCH = {"anna": 210.0, "bert": 110.0}
FRAMES = 80
"""At 40 Hz: two seconds."""


def utterance(speaker: str, seed: int, frames: int = FRAMES) -> Utterance:
    """Two phonemes in turn, one of them silent; content is a random code of the phoneme."""
    rng = np.random.default_rng(seed)
    pitch = PITCH.get(speaker, 150.0) * (1 + 0.05 * rng.random())
    time = np.arange(frames * 600) / 24_000
    phonemes = 43 + 20 * (np.arange(frames) // 10 % 2)
    voiced = np.repeat(phonemes == 43, 600)
    place = 700 if seed % 2 else 1500
    harmonics = np.arange(1, int(4000 / pitch))
    levels = np.exp(-(((harmonics * pitch - place) / 500) ** 2)) + 0.05
    wave = (levels[:, None] * np.sin(2 * np.pi * harmonics[:, None] * pitch * time)).sum(0) * voiced
    wave = 0.3 * wave / np.abs(wave).max() + 0.003 * rng.standard_normal(len(time))
    codes = np.random.default_rng(7).standard_normal((178, CONTENT)).astype(np.float32) * 0.1
    f0 = np.where(np.repeat(phonemes == 43, 2), pitch, 0).astype(np.float32)
    return Utterance(
        (wave * 32767).astype(np.int16),
        codes[phonemes].T,
        phonemes,
        f0,
        (f0 > 0).astype(np.float32),
        speaker,
        16_000,
        False,
    )


def make_labelled(folder: Path, count: int = 3) -> Path:
    """`count` utterances of each speaker and of the teacher, and one corrupt file."""
    (folder / "real").mkdir(parents=True)
    (folder / "teacher").mkdir()
    for number in range(count):
        for speaker in PITCH:
            save_utterance(folder / "real" / f"{speaker}_{number}.npz", utterance(speaker, number))
        made = utterance(TEACHER, 10 + number)
        np.savez(
            folder / "teacher" / f"{number:05d}.npz",
            audio=made.audio,
            content=made.content.astype(np.float16),
            f0=np.where(made.f0 > 0, made.f0, 6.0).astype(np.float32),
            n=np.zeros(2 * FRAMES, np.float32),
            phon=made.phonemes.astype(np.int16),
            style=np.zeros(256, np.float32),
        )
    whole = (folder / "real" / "anna_0.npz").read_bytes()
    (folder / "real" / "cut_off.npz").write_bytes(whole[: len(whole) // 2])
    return folder
