"""Every error that rtvc raises on purpose.

    RtvcError
    ├── AudioError        a recording, samples or a control of a conversion that cannot be used
    ├── CheckpointError   weights that are truncated, foreign, hostile or of another shape
    ├── ConfigError       a configuration that names what does not exist
    ├── DependencyError   an optional package that a command needs and this machine lacks
    ├── TextError         text or phonemes that cannot be spoken
    ├── VoiceError        a voice file or reference that cannot be used
    ├── TrainingError     a run that cannot start, resume or go on
    ├── EngineError       a compiled engine that is missing, stale or made for another machine
    ├── OutputError       a file, pipe or device that cannot be written
    ├── DeviceError       an audio device that is missing, busy or gone
    ├── ProtocolError     a message of the streaming service that is not of the protocol
    └── ServiceError      a streaming service that refuses, cannot be reached or is gone

A message says what was expected, what came, and what to do. It may quote a file, a path or a peer:
what it quotes is shown with escapes (`rtvc.printable`), whoever prints the message.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from rtvc.printable import printable

LONGEST = 10_000
"""Characters of a message; the rest is left out."""


class RtvcError(Exception):
    """Base of all deliberate errors; the command line prints its text without a traceback."""

    def __str__(self) -> str:
        """The message. Its lines are kept, other control characters that it quotes are shown with
        escapes."""
        return printable(super().__str__(), LONGEST, keep="\n")


class AudioError(RtvcError):
    """A recording, a block of samples or a control of a conversion that cannot be used."""


class CheckpointError(RtvcError):
    """Weights that are truncated, foreign, hostile or of another shape."""


class ConfigError(RtvcError):
    """A configuration that names what does not exist."""


class DependencyError(RtvcError):
    """An optional package that a command needs and this machine lacks."""


@contextmanager
def needs_extra(extra: str, what: str, otherwise: str = "") -> Iterator[None]:
    """Around imports of an optional package.

    Args:
        extra: of rtvc-engine, which brings it.
        what: needs it, in words.
        otherwise: what may be done without it.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        yield
    except ImportError as error:
        advice = f"pip install 'rtvc-engine[{extra}]'" + (otherwise and f", {otherwise}")
        raise DependencyError(f"{what}: {advice}") from error


class TextError(RtvcError):
    """Text or phonemes that cannot be spoken."""


class VoiceError(RtvcError):
    """A voice file or reference that cannot be used."""


class TrainingError(RtvcError):
    """A run that cannot start, resume or go on."""


class EngineError(RtvcError):
    """A compiled engine that is missing, stale or made for another machine."""


class OutputError(RtvcError, OSError):
    """A file, pipe or device that cannot be written; also an `OSError`, as callers of files
    expect."""


class DeviceError(RtvcError):
    """An audio device that is missing, busy or gone."""


class ProtocolError(RtvcError):
    """A message of the streaming service that is not of the protocol."""


class ServiceError(RtvcError):
    """A streaming service that refuses, cannot be reached or is gone."""
