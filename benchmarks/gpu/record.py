"""The results of the GPU suite as one JSON file: written whole after every part, so that a killed
run loses one part at most.

No imports but the standard library: the process that watches over the parts uses it too.
"""

import datetime
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from rtvc.files import write

FOLDERS = ("benchmarks", "engine", "kernels", "rtvc")
KIND = "gpu-suite"


def source(root: Path) -> str:
    """A digest of all code and weights below the root: results of other code are no results of this
    one."""
    digest = hashlib.sha256()
    for folder in FOLDERS:
        for where, inner, files in os.walk(root / folder):  # links inside `rtvc` are not followed
            inner[:] = sorted(name for name in inner if name not in ("__pycache__", "results"))
            for name in sorted(files):
                if name.endswith((".py", ".cu")):
                    digest.update(name.encode() + (Path(where) / name).read_bytes())
    return digest.hexdigest()[:16]


class Record:
    """Parts by name, each a dict with `status`: running, done, failed, skipped or unavailable.

    Args:
        path: the file.
        identity: what results must share to stand in one file; a file of another identity is begun
            anew.
        keep: take over results whatever their identity.
    """

    def __init__(self, path: Path, identity: dict[str, Any], keep: bool = False) -> None:
        self.path, self.identity = path, identity
        self.whole: dict[str, Any] = {"kind": KIND, **identity, "parts": {}}
        try:
            content = json.loads(path.read_text())
        except (OSError, ValueError):
            content = {}
        if content.get("kind") == KIND and (
            keep or all(content.get(key) == value for key, value in identity.items())
        ):
            self.whole = {**content, **identity}

    @property
    def parts(self) -> dict[str, dict[str, Any]]:
        """All parts so far."""
        parts: dict[str, dict[str, Any]] = self.whole["parts"]
        return parts

    def finished(self, name: str) -> bool:
        """Whether a part need not run again: it is done, or this machine lacks what it needs."""
        return self.parts.get(name, {}).get("status") in ("done", "unavailable")

    def running(self) -> str | None:
        """The part that was begun and not ended."""
        return next(
            (name for name, part in self.parts.items() if part["status"] == "running"), None
        )

    def begin(self, name: str) -> None:
        """Marks a part as running."""
        self.parts.pop(name, None)  # so that what runs again comes last in the file
        self.parts[name] = {"status": "running", "began": time.time()}
        self.save()

    def end(self, name: str, status: str, **more: Any) -> None:
        """Marks a part as ended."""
        began = self.parts.get(name, {}).get("began")
        self.parts[name] = {
            "status": status,
            **({"seconds": round(time.time() - began, 2)} if began else {}),
            **more,
        }
        self.save()

    def note(self, **facts: Any) -> None:
        """Facts about the machine."""
        self.whole.update(facts)
        self.save()

    def save(self) -> None:
        """Writes the file, whole or not at all."""
        self.whole["date"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        write(self.path, json.dumps(self.whole, indent=1) + "\n")
