"""A tiny made-up language for the tests of the training stages: every phoneme is a chord over the
speaker's pitch."""

from pathlib import Path

import numpy as np
import soundfile

from rtvc.data.manifest import Entry, write_manifest
from tests.support.train_runs import run_settings

RATE = 24_000
PHONEMES = "aeioumn"
PITCH = {"anna": 210.0, "bert": 110.0, "cleo": 160.0}

TINY_MODEL = """
[model]
hidden_dim = 16
style_dim = 8
residual_dim = 4
width = 4
widest = 8
text_layers = 1
aligner_channels = 16
aligner_layers = 1
aligner_embedding = 16
pitch_width = 2
dropout = 0.0
"""

PROSODY = """
decoder_width = 16
generator_channels = 8
block_kernels = [3]
predictor_layers = 1
bert_width = 8
bert_hidden = 16
bert_heads = 2
bert_inner = 16
bert_depth = 1
diffusion_layers = 1
diffusion_heads = 2
diffusion_head_features = 8
"""
"""Further sizes, which `stage2_styletts2` has."""


def spoken(phonemes: str, pitch: float, rng: np.random.Generator) -> np.ndarray:
    """One utterance, 24 kHz: 0.16 s a phoneme, silence for a space."""
    sounds = []
    for phoneme in phonemes:
        time = np.arange(int(0.16 * RATE)) / RATE
        if phoneme == " ":
            sounds.append(0.001 * rng.standard_normal(len(time)))
            continue
        place = 400 + 350 * PHONEMES.index(phoneme)
        harmonics = np.arange(1, int(4_000 / pitch))
        levels = np.exp(-(((harmonics * pitch - place) / 300) ** 2)) + 0.1
        wave = (levels[:, None] * np.sin(2 * np.pi * harmonics[:, None] * pitch * time)).sum(0)
        sounds.append(wave * np.hanning(len(time)) ** 0.3)
    wave = np.concatenate(sounds)
    return 0.4 * wave / np.abs(wave).max() + 0.002 * rng.standard_normal(len(wave))


def make_corpus(folder: Path, count: int = 6, length: int = 8, corrupt: int = 0) -> Path:
    """Recordings of three speakers and their manifest; the last `corrupt` ones are text files."""
    rng = np.random.default_rng(5)
    entries = []
    for number in range(count):
        speaker = list(PITCH)[number % 3]
        phonemes = "".join(rng.choice(list(PHONEMES), length - 1)) + " a"
        path = folder / f"{number}.wav"
        soundfile.write(path, spoken(phonemes, PITCH[speaker], rng), RATE)
        seconds = 0.16 * len(phonemes)
        if number >= count - corrupt:
            path.write_text("not audio")
        entries.append(Entry(path, speaker, seconds, RATE, "words", phonemes))
    write_manifest(folder / "manifest.tsv", entries)
    return folder / "manifest.tsv"


def tiny_config(
    folder: Path, manifest: Path, extra: str = "", steps: int = 12, lr: float = 2e-3
) -> Path:
    """A configuration for tiny models on the corpus; `extra` is appended, and holds tables only."""
    path = folder / "config.toml"
    data = f'[data]\nmanifest = "{manifest}"\nvalid = "{manifest}"\nbatch = 2\n'
    path.write_text(f"{run_settings(steps, lr)}{data}{extra}{TINY_MODEL}")
    return path
