"""Evaluators that need no weights, and a small list of pairs made of stand-in speech."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from standins import recording

from rtvc.evaluate.audio import Wave
from rtvc.evaluate.evaluators import Evaluators

SAID = "the quick brown fox"


class FakeEvaluators:
    """Functions of the waveform alone, and a count of how often each was asked."""

    def __init__(self) -> None:
        self.asked = {
            "transcribe": 0,
            "embed": 0,
            "embed2": 0,
            "quality": 0,
            "pitch": 0,
            "transcribe2": 0,
            "naturalness": 0,
        }

    def bundle(self, **changed: object) -> Evaluators:
        """As the evaluation takes them."""
        plain = Evaluators(
            self.transcribe,
            self.embed,
            self.embed2,
            self.quality,
            self.pitch,
            self.transcribe2,
            self.naturalness,
        )
        return replace(plain, **changed)  # type: ignore[arg-type]

    def without_judges(self) -> Evaluators:
        """As where the packages of the optional judges are missing."""
        missing = {"wer2": "no second recogniser", "distillmos": "no second opinion"}
        return self.bundle(transcribe2=None, naturalness=None, missing=missing)

    def transcribe2(self, wave: Wave) -> str:
        """Loses the first word of soft waves."""
        self.asked["transcribe2"] += 1
        return "the quick brown fox" if np.abs(wave).max() > 0.2 else "quick brown"

    def naturalness(self, wave: Wave) -> float:
        """Grows with the level."""
        self.asked["naturalness"] += 1
        return 2 + float(np.abs(wave).max())

    def transcribe(self, wave: Wave) -> str:
        """Loud waves are understood, soft ones lose their last word."""
        self.asked["transcribe"] += 1
        return "The quick, brown fox!" if np.abs(wave).max() > 0.2 else "the quick brown"

    def embed(self, wave: Wave) -> np.ndarray:
        """Shares of energy in four bands."""
        self.asked["embed"] += 1
        return self.bands(wave)

    def embed2(self, wave: Wave) -> np.ndarray:
        """The same in other words."""
        self.asked["embed2"] += 1
        return self.bands(wave)[::-1]

    def quality(self, wave: Wave) -> dict[str, float]:
        """Grows with the level."""
        self.asked["quality"] += 1
        return {"ovrl": 1 + float(np.abs(wave).max()), "sig": 3.0, "bak": 4.0}

    def pitch(self, wave: Wave) -> np.ndarray:
        """The level of every 12.5 ms, as if it were a pitch."""
        self.asked["pitch"] += 1
        frames = wave[: len(wave) // 300 * 300].reshape(-1, 300)
        return np.sqrt((frames**2).mean(1)).astype(np.float64) * 1000

    @staticmethod
    def bands(wave: Wave) -> np.ndarray:
        """(4,) of length 1."""
        power = np.abs(np.fft.rfft(wave, 4800)) ** 2
        energy = (
            np.array([part.sum() for part in np.split(power[:2400], [12, 60, 300])], np.float32)
            + 1e-6
        )
        return np.sqrt(energy / energy.sum())


def pair_list(folder: Path, count: int = 3) -> Path:
    """Writes recordings and a list of so many pairs; returns the list's path."""
    (folder / "eval").mkdir()
    lines = ["source\ttarget_speaker\treferences\ttranscript"]
    for speaker in range(count + 1):
        for take in range(2):
            recording(
                folder / "eval" / f"s{speaker}_{take}.wav",
                1.0,
                16_000,
                100 + 30 * speaker + take,
                gain=0.4 + 0.1 * speaker,
            )
    for source in range(count):
        lines.append(
            f"s{source}_0.wav\tspeaker{source + 1}\ts{source + 1}_0.wav"
            f" s{source + 1}_1.wav\t{SAID.upper()}"
        )
    path = folder / "pairs.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path
