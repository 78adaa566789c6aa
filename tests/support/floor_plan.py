"""The figures of docs/architecture.md: `python -m tests.support.floor_plan [CHECKOUT]`.

Lines are counted as they would stand at 100 columns, however the checkout is formatted, so that a
narrower page does not look like more code.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

FOLDERS = ("kernels", "rtvc", "engine", "clients", "benchmarks")
WIDTH = 100


def code(root: Path) -> list[Path]:
    """Every Python file of the package, links not followed."""
    return sorted(
        Path(parent) / name
        for folder in FOLDERS
        for parent, _, names in os.walk(root / folder)
        for name in names
        if name.endswith(".py") and "__pycache__" not in parent
    )


def formatted(root: Path, to: Path) -> Path:
    """A copy of a checkout's code, formatted at WIDTH."""
    for folder in (*FOLDERS, "tests"):
        shutil.copytree(root / folder, to / folder, symlinks=True)
    (to / "ruff.toml").write_text(
        f"line-length = {WIDTH}\n[format]\nskip-magic-trailing-comma = true\n"
    )
    subprocess.run([sys.executable, "-m", "ruff", "format", "-q", "."], cwd=to, check=True)
    return to


def figures(root: Path) -> dict[str, object]:
    """What the table of the page says of a checkout."""
    with tempfile.TemporaryDirectory() as folder:
        same = formatted(root, Path(folder))
        lengths = sorted(path.read_text().count("\n") for path in code(same))
        tests = sum(path.read_text().count("\n") for path in (same / "tests").rglob("*.py"))
    rooms = Counter(path.parent for path in code(root) if path.name != "__init__.py")
    room, most = max(rooms.items(), key=lambda each: each[1])
    # as ruff counts: what a type checker is told behind a line is not part of it
    wide = sum(
        len(line.split("  # type: ignore")[0]) > WIDTH
        for path in code(root)
        for line in path.read_text().split("\n")
    )
    return {
        "files": len(lengths),
        "files in the largest folder": f"{most} ({room.relative_to(root)})",
        "lines a file: median, p90, max": (
            f"{statistics.median(lengths):g}, {lengths[int(0.9 * len(lengths))]}, {lengths[-1]}"
        ),
        "lines of code": sum(lengths),
        "lines of tests": tests,
        "lines over 100 columns": wide,
    }


if __name__ == "__main__":
    for checkout in sys.argv[1:] or ["."]:
        print(checkout)
        for name, value in figures(Path(checkout).resolve()).items():
            print(f"  {name}: {value}")
