"""`rtvc bench noise`: noisy speech through the whole chain, with and without a noise suppressor:
what a recogniser understands of it, and how natural it sounds.

Noise is a quarter of a café (other speech, of several people at once) and three quarters of a fan
(noise that falls by 5 dB an octave, with a hum), mixed at a ratio of speech to noise; no two
utterances have the same.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rtvc.audio.recording import read
from rtvc.audio.samples import Samples
from rtvc.benchmarks.live.suppressors import rnnoise
from rtvc.clients.input.suppressor import Framed, suppressor
from rtvc.converter import VoiceConverter
from rtvc.evaluate.pairs import Pair
from rtvc.evaluate.text import wer

RATE = 24_000
LEVELS_DB = (0.0, 5.0, 10.0, 20.0)
"""Ratios of speech to noise."""
BLOCK_S = 0.010
CANDIDATES: dict[str, Callable[[int], Framed] | None] = {
    "none": None,
    "rnnoise": rnnoise,
    "hush": suppressor,
}
BABBLE = 0.5
"""Amplitude of the other speakers against that of the fan."""


@dataclass(frozen=True)
class Row:
    """One suppressor at one level.

    Attributes:
        suppressor: its name.
        snr_db: ratio of speech to noise that it was given.
        errors: words that the recogniser had wrong.
        words: that were said.
        mos: mean of DistillMOS.
        late_ms: delay that the suppressor adds.
        block_ms: mean time that 10 ms take it on this machine.
    """

    suppressor: str
    snr_db: float
    errors: int
    words: int
    mos: float
    late_ms: float
    block_ms: float


def fan(count: int, seed: int) -> Samples:
    """Noise (N,) of unit power that falls by 5 dB an octave above 100 Hz, and a hum of 100 Hz."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    frequencies = np.fft.rfftfreq(count, 1 / RATE)
    spectrum *= np.maximum(frequencies, 100.0) ** (-5 / 6.02)
    noise = np.fft.irfft(spectrum, count)
    noise /= np.sqrt(np.mean(np.square(noise)))
    hum = 0.3 * np.sin(2 * np.pi * 100 * np.arange(count) / RATE)
    return (noise + hum).astype(np.float32)


def noisy(speech: Samples, others: Sequence[Samples], snr_db: float, seed: int) -> Samples:
    """Speech (N,) in noise: a fan, and the other recordings all at once."""
    noise = fan(len(speech), seed)
    for other in others:
        talk = np.resize(other, len(speech))
        noise += BABBLE * talk / np.sqrt(len(others) * np.mean(np.square(talk)))
    power = np.mean(np.square(speech)) / np.mean(np.square(noise))
    mixed = speech + noise * np.sqrt(power / 10 ** (snr_db / 10))
    level: Samples = (mixed * min(1.0, 0.9 / np.abs(mixed).max())).astype(np.float32)
    return level


def treated(x: Samples, make: Callable[[int], Framed] | None) -> tuple[Samples, float, float]:
    """What a suppressor makes of x (N,) in blocks as they come; its delay in seconds, which is
    taken off, and the seconds that a block takes."""
    if make is None:
        return x, 0.0, 0.0
    one, size = make(RATE), round(BLOCK_S * RATE)
    late = round(one.late * RATE)
    padded = np.concatenate([x, np.zeros(late + -(len(x) + late) % size, np.float32)])
    began = time.thread_time()
    parts = [one(padded[at : at + size]) for at in range(0, len(padded), size)]
    taken = time.thread_time() - began
    return np.concatenate(parts)[late : late + len(x)], one.late, taken / len(parts)


def compare(
    converter: VoiceConverter,
    pairs: Sequence[Pair],
    transcribe: Callable[[Samples], str],
    score: Callable[[Samples], float],
    *,
    levels: Sequence[float] = LEVELS_DB,
    names: Sequence[str] = tuple(CANDIDATES),
) -> Iterator[Row]:
    """A row for every suppressor and level, as they come.

    Args:
        converter: the streaming model.
        pairs: utterances, and the voices that they are converted to.
        transcribe: (N,) at 24 kHz -> words.
        score: (N,) at 24 kHz -> a mean opinion score.
        levels: ratios of speech to noise in dB.
        names: of the candidates.
    """
    speech = [np.asarray(read(pair.source), np.float32) for pair in pairs]
    voices = [converter.voice(*pair.references) for pair in pairs]
    for level in levels:
        mixed = [
            noisy(x, [speech[(at + step) % len(speech)] for step in (1, 2, 3)], level, at)
            for at, x in enumerate(speech)
        ]
        for name in names:
            errors = words = 0
            scores, late, taken = list[float](), 0.0, 0.0
            for x, voice, pair in zip(mixed, voices, pairs, strict=True):
                clean, late, taken = treated(x, CANDIDATES[name])
                y = converter.convert(clean, RATE, voice)
                wrong, count = wer(pair.transcript, transcribe(y))
                errors, words = errors + wrong, words + count
                scores.append(score(y))
            mean = float(np.mean(scores))
            yield Row(name, level, errors, words, mean, 1000 * late, 1000 * taken)


def table(rows: Sequence[Row]) -> str:
    """A line for every level and suppressor."""
    lines = ["SNR    suppressor    WER    DistillMOS   delay    10 ms take"]
    for row in rows:
        lines.append(
            f"{row.snr_db:3.0f} dB {row.suppressor:>10} {row.errors / row.words:8.3f}"
            f" {row.mos:10.2f} {row.late_ms:8.1f} ms {row.block_ms:8.2f} ms"
        )
    return "\n".join(lines)


def record(rows: Sequence[Row], pairs: Path) -> dict[str, Any]:
    """For the results file."""
    return {"name": "noise", "pairs": pairs.name, "rows": [vars(row) for row in rows]}
