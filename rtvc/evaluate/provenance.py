"""Where and when a result was made: without it a number cannot be compared with another."""

import datetime
import importlib.metadata
import os
import platform
from typing import Any

import torch

from rtvc import processor, version

PACKAGES = (
    "torch",
    "numpy",
    "faster-whisper",
    "ctranslate2",
    "Resemblyzer",
    "open-voicefilter-lite",
    "speechmos",
    "swift-f0",
)


def provenance() -> dict[str, Any]:
    """`machine` (its load over 1, 5 and 15 minutes too: a busy machine spoils times), `commit` and
    `date` (UTC)."""
    return {
        "machine": {
            "cpu": processor.name(),
            "cores": os.cpu_count(),
            "load": (
                [round(value, 2) for value in os.getloadavg()]
                if hasattr(os, "getloadavg")
                else None
            ),
            "torch_threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "system": platform.platform(),
            "python": platform.python_version(),
            "packages": {name: version for name in PACKAGES if (version := installed(name))},
        },
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def installed(package: str) -> str | None:
    """A distribution's version, None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str:
    """The checkout's or the wheel's commit, `-dirty` if files that it tracks were changed; the
    installed version where it is not known."""
    return version.commit() or f"{version.NAME} {installed(version.NAME)}"
