"""Transcripts by Whisper base (Radford et al. 2022) through CTranslate2: deterministic, English,
one thread."""

from pathlib import Path
from typing import Any

from rtvc.evaluate.audio import Wave, at_16k
from rtvc.evaluate.judges.optional import need
from rtvc.teacher.whisper_base import whisper_base


class Recogniser:
    """Whisper base with beam 5 at temperature 0, each window for itself."""

    def __init__(self, folder: Path | None = None, workers: int = 1) -> None:
        """A CTranslate2 Whisper model, by default the one from the package registry, for so many
        threads at once."""
        whisper = need("faster_whisper")
        self._model: Any = whisper.WhisperModel(
            str(folder or whisper_base()),
            device="cpu",
            compute_type="int8",
            cpu_threads=1,
            num_workers=workers,
        )

    def transcribe(self, wave: Wave) -> str:
        """(N,) at 24 kHz -> the words heard, as Whisper writes them."""
        if not len(wave):
            return ""
        segments, _ = self._model.transcribe(
            at_16k(wave),
            language="en",
            task="transcribe",
            beam_size=5,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
            vad_filter=False,
        )
        return " ".join(segment.text.strip() for segment in segments)
