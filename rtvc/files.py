"""Files that are either whole or as they were before."""

import contextlib
import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new name in the same folder, of the same suffix: what the block writes there takes `path`'s place when the block ends well.

    When it does not, the new file is removed and `path` is as it was. The name begins with a dot.
    """
    fresh = path.with_name(f".{uuid.uuid4().hex[:8]}.{path.name}")
    try:
        yield fresh
        os.replace(fresh, path)
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)


def write(path: Path, content: bytes | memoryview | str | Callable[[BinaryIO], object]) -> None:
    """Writes a file, and its folder where that is missing.

    Args:
        path: where to.
        content: bytes, a text (UTF-8), or a function that fills the open file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as fresh, open(fresh, "wb") as sink:
        if callable(content):
            content(sink)
        else:
            sink.write(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: Any) -> None:
    """Writes a value as JSON that every reader takes: no NaN."""
    write(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
