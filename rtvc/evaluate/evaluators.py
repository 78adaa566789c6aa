"""The evaluators as one bundle of functions, so that a test or an experiment can put its own in a place."""

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rtvc.evaluate.audio import Wave, read
from rtvc.evaluate.pitch import Track, f0
from rtvc.evaluate.quality import dnsmos
from rtvc.evaluate.recogniser import Recogniser
from rtvc.evaluate.speaker import Embedding, SpeakerEncoder
from rtvc.files import write


@dataclass(frozen=True)
class Evaluators:
    """What is asked of a 24 kHz waveform (N,): its words, two speaker embeddings, its quality and its F0 track."""

    transcribe: Callable[[Wave], str]
    embed: Callable[[Wave], Embedding]
    embed2: Callable[[Wave], Embedding]
    quality: Callable[[Wave], dict[str, float]]
    pitch: Callable[[Wave], Track]


@functools.cache
def standard(workers: int = 1) -> Evaluators:
    """The real ones; loading takes some seconds, once a process."""
    return Evaluators(
        Recogniser(workers=workers).transcribe,
        SpeakerEncoder("resemblyzer").embed,
        SpeakerEncoder("voicefilter").embed,
        dnsmos,
        f0,
    )


@functools.cache
def fingerprint() -> str:
    """Of the evaluators' own code: measurements stored by other code are not used again."""
    stems = ("audio", "evaluators", "pitch", "quality", "recogniser", "speaker", "text")
    return hashlib.sha256(b"".join(Path(__file__).with_name(f"{stem}.py").read_bytes() for stem in stems)).hexdigest()[:16]


class Recordings:
    """What the evaluators say of the recordings themselves: the same for every model, so it is kept in a folder."""

    def __init__(self, evaluators: Evaluators, folder: Path | None) -> None:
        self.evaluators, self.folder = evaluators, folder
        self._kept: dict[tuple[Path, str], npt.NDArray[Any]] = {}

    def transcript(self, path: Path) -> str:
        """The words heard in a recording."""
        return str(self._measure(path, "transcript", lambda wave: np.array(self.evaluators.transcribe(wave))))

    def embedding(self, path: Path) -> Embedding:
        """(256,) by the first encoder."""
        return self._measure(path, "embedding", self.evaluators.embed)

    def embedding2(self, path: Path) -> Embedding:
        """(256,) by the second, unrelated encoder."""
        return self._measure(path, "embedding2", self.evaluators.embed2)

    def pitch(self, path: Path) -> Track:
        """(T,) F0 in Hz every 16 ms."""
        return self._measure(path, "pitch", self.evaluators.pitch)

    @staticmethod
    def _digest(path: Path) -> str:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]

    def _measure(self, path: Path, what: str, measure: Callable[[Wave], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        if (path, what) in self._kept:
            return self._kept[path, what]
        file = self.folder and self.folder / f"{path.stem}-{self._digest(path)}-{fingerprint()}.{what}.npy"
        if file and file.is_file():
            found: npt.NDArray[Any] = np.load(file, allow_pickle=False)
        else:
            found = np.asarray(measure(read(path)))
            if file:
                write(file, lambda sink: np.save(sink, found, allow_pickle=False))
        self._kept[path, what] = found
        return found
