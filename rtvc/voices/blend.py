"""What a voice of several recordings or voices is called."""

from collections.abc import Sequence

from rtvc.voices.voice import Voice

NAMED = 3
"""Voices of a blend that are named in its name."""


def blended_name(voices: Sequence[Voice]) -> str:
    """What a blend of voices is called: by all of them, the first three by their names."""
    names = list(dict.fromkeys(voice.name for voice in voices))
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return " + ".join(names[:NAMED]) + more
