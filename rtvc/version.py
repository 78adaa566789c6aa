"""Which rtvc this is: the version, of which pyproject.toml is the one place, and the commit."""

import subprocess
from pathlib import Path

NAME = "rtvc-engine"
"""Of the distribution."""
BUILT_FROM = Path(__file__).with_name("commit.txt")
"""Written by setup.py into wheels that are built in a checkout."""


def version() -> str:
    """The installed version.

    Raises:
        PackageNotFoundError: rtvc is imported without having been installed.
    """
    from importlib import metadata

    return metadata.version(NAME)


def commit() -> str | None:
    """The commit that this code is of, 12 digits, `-dirty` if files that it tracks were changed;
    None where nobody knows."""
    root = Path(__file__).parents[1]
    if (root / ".git").exists():  # our own: another project's may lie around site-packages
        describe = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        try:
            done = subprocess.run(describe, cwd=root, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None
    return BUILT_FROM.read_text().strip() if BUILT_FROM.is_file() else None
