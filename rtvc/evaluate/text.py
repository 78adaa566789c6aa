"""Word errors of a transcript, after Whisper's own English normalisation of both texts."""

import functools
from collections.abc import Callable

from rtvc.evaluate.judges.optional import need


@functools.cache
def normaliser() -> Callable[[str], str]:
    """Whisper's: case, punctuation, contractions, numbers and British spellings made one (Radford
    et al. 2022, appendix C)."""
    normalise: Callable[[str], str] = need("whisper_normalizer.english").EnglishTextNormalizer()
    return normalise


def wer(reference: str, hypothesis: str) -> tuple[int, int]:
    """Errors (substitutions, insertions and deletions) and words of the reference, of the
    normalised texts."""
    expected, recognised = normaliser()(reference), normaliser()(hypothesis)
    words = len(expected.split())
    if not words:
        return len(recognised.split()), 0
    counts = need("jiwer").process_words(expected, recognised)
    return counts.substitutions + counts.insertions + counts.deletions, words
