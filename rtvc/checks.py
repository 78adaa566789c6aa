"""What a caller may hand in: one place for the numbers of a conversion, asked at every public
door.

The owners of a state ask again, so that a value that is refused leaves the old one wherever it came
from. A message says what was expected, what came, and what to pass instead.
"""

import math
import os
from numbers import Integral, Real

from rtvc.errors import AudioError, ConfigError, RtvcError

PITCH = (-24.0, 24.0)
"""Semitones that may be added to the pitch: those of the protocol (docs/protocol.md)."""
SHARE = (0.0, 1.0)
"""What prosody and wet may be."""


def what(value: object) -> str:
    """A value as a message names it: numbers and short texts as they are, anything else by its
    type.
    """
    shown = repr(value) if isinstance(value, str | Real) or value is None else ""
    return shown if 0 < len(shown) <= 60 else f"a value of type {type(value).__name__}"


def real(value: object) -> float | None:
    """A value as a float, None unless it is a real number; infinite where a float cannot hold
    it.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def number(value: object, name: str, lowest: float, highest: float) -> float:
    """A finite number from `lowest` to `highest`.

    Raises:
        AudioError: it is none, or another.
    """
    expected = f"expected a number from {lowest:g} to {highest:g} as the {name}"
    amount = real(value)
    if amount is None:
        raise AudioError(f"{expected}, got {what(value)}")
    if not lowest <= amount <= highest:  # NaN is neither
        raise AudioError(f"{expected}, got {amount:g}")
    return amount


def pitch(semitones: object) -> float:
    """Semitones added to the pitch.

    Raises:
        AudioError: no finite number from -24 to 24.
    """
    return number(semitones, "pitch", *PITCH)


def prosody(share: object) -> float:
    """The share of the voice's own register and range.

    Raises:
        AudioError: no number from 0 to 1.
    """
    return number(share, "prosody", *SHARE)


def wet(share: object) -> float:
    """The share of the converted voice in what is heard.

    Raises:
        AudioError: no number from 0 (input) to 1 (converted).
    """
    return number(share, "wet share", *SHARE)


def moment(seconds: object, name: str) -> float | None:
    """A time on somebody's clock, or None.

    Raises:
        AudioError: it is no finite number.
    """
    if seconds is None:
        return None
    time = real(seconds)
    if time is None or not math.isfinite(time):
        raise AudioError(f"expected a finite number of seconds as `{name}`, got {what(seconds)}")
    return time


def path(value: object, what_for: str, error: type[RtvcError] = ConfigError) -> str:
    """A path, or a name, as a text.

    Args:
        value: what came.
        what_for: what it is of, with its article, for the message.
        error: raised unless it is one.
    """
    given = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(given, str):
        raise error(f"expected a path or a name as {what_for}, got {what(given)}: pass a text")
    return given


def count(value: object, name: str, lowest: int = 0) -> int:
    """A whole number of things.

    Raises:
        ConfigError: it is none, or below `lowest`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < lowest:
        raise ConfigError(f"expected a whole number from {lowest} as `{name}`, got {what(value)}")
    return int(value)
