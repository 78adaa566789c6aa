"""The evaluators as one bundle of functions, so that a test or an experiment can put its own in a
place."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rtvc.errors import DependencyError
from rtvc.evaluate.audio import Wave
from rtvc.evaluate.judges.distillmos import judge
from rtvc.evaluate.judges.moonshine import Moonshine
from rtvc.evaluate.judges.pitch import Track, f0
from rtvc.evaluate.judges.quality import dnsmos
from rtvc.evaluate.judges.recogniser import Recogniser
from rtvc.evaluate.judges.speaker import Embedding, SpeakerEncoder


@dataclass(frozen=True)
class Evaluators:
    """What is asked of a 24 kHz waveform (N,): its words, two speaker embeddings, its quality and
    F0.

    The last two are judges that no training ever sees: a second recogniser's words and a second
    opinion on naturalness. Where one is None, its numbers are missing, and `missing` says why by
    its name.
    """

    transcribe: Callable[[Wave], str]
    embed: Callable[[Wave], Embedding]
    embed2: Callable[[Wave], Embedding]
    quality: Callable[[Wave], dict[str, float]]
    pitch: Callable[[Wave], Track]
    transcribe2: Callable[[Wave], str] | None = None
    naturalness: Callable[[Wave], float] | None = None
    missing: Mapping[str, str] = field(default_factory=dict)
    """`wer2` or `distillmos` -> the reason."""


@functools.cache
def standard(workers: int = 1) -> Evaluators:
    """The real ones; loading takes some seconds, once a process.

    Raises:
        DependencyError: one that is not optional is not installed.
    """
    transcribe2: Callable[[Wave], str] | None = None
    naturalness: Callable[[Wave], float] | None = None
    missing: dict[str, str] = {}
    try:
        transcribe2 = Moonshine().transcribe
    except DependencyError as error:
        missing["wer2"] = str(error)
    try:
        naturalness = judge()
    except DependencyError as error:
        missing["distillmos"] = str(error)

    return Evaluators(
        Recogniser(workers=workers).transcribe,
        SpeakerEncoder("resemblyzer").embed,
        SpeakerEncoder("voicefilter").embed,
        dnsmos,
        f0,
        transcribe2,
        naturalness,
        missing,
    )
