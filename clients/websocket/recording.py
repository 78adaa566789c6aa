"""Reference recordings on their way to a server: their bytes and their names."""

import hashlib
import os
import re
from pathlib import Path
from typing import TypeAlias

from rtvc.errors import AudioError

Recording: TypeAlias = str | os.PathLike[str] | bytes
"""A file, or its bytes."""
DIGITS = 8
"""Hexadecimal digits of the contents' SHA-256 in a name: equal names mean equal recordings."""


def named(recording: Recording, name: str | None = None) -> tuple[str, bytes]:
    """A name for the voice, and the recording's bytes.

    Raises:
        AudioError: the file is not there, empty or cannot be read.
    """
    if isinstance(recording, bytes):
        data, stem = recording, "recording"
    else:
        path = Path(recording)
        try:
            data, stem = path.read_bytes(), path.stem
        except OSError as error:
            raise AudioError(
                f"the recording {path} cannot be read ({error.strerror}): check the path"
            ) from error
    if not data:
        raise AudioError("expected an audio file, got an empty recording")
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[:40] or "recording"
    return name or f"{plain}-{hashlib.sha256(data).hexdigest()[:DIGITS]}", data
