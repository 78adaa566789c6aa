"""Packaging. The four top-level folders install as `rtvc.kernels`, `rtvc.engine`, `rtvc.clients`,
`rtvc.benchmarks`.

The links `rtvc/kernels -> ../kernels` (and so on) make the same import names true in a checkout;
the folders carry no `__init__.py`, so they can never shadow an installed package of the same name.
"""

import os
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

MAPPED = ("kernels", "engine", "clients", "benchmarks")
ROOT = Path(__file__).parent


def packages() -> list[str]:
    """Every folder that holds files, the mapped ones under their `rtvc.` names; the links inside
    `rtvc/` are not followed."""
    names = []
    for top in ("rtvc", *MAPPED):
        prefix = "" if top == "rtvc" else "rtvc."
        for folder, inner, files in os.walk(ROOT / top):
            inner[:] = sorted(name for name in inner if name != "__pycache__")
            if files:
                names.append(prefix + ".".join(Path(folder).relative_to(ROOT).parts))
    return names


def write_commit(folder: str) -> None:
    """Writes the commit, where it is known, beside the code that is copied to a folder."""
    said = ROOT / "rtvc" / "commit.txt"  # of an sdist
    commit = said.read_text() if said.is_file() else ""
    if (ROOT / ".git").exists():
        describe = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        commit = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True).stdout
    if commit:
        (Path(folder) / "rtvc" / "commit.txt").write_text(commit)


class BuildPy(build_py):
    """Copies the sources, then adds the file that `rtvc.version` reads."""

    def run(self) -> None:
        """As of every command."""
        super().run()
        if not self.editable_mode:
            write_commit(self.build_lib)


class Sdist(sdist):
    """The same for an archive of the sources."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        """As of `sdist`."""
        super().make_release_tree(base_dir, files)
        write_commit(base_dir)


DATA = ("safetensors", "json", "toml", "voice", "html", "js", "css", "svg", "cu", "wav", "flac")
"""Suffixes of files that are not Python and belong to the package, at any depth below it."""

setup(
    cmdclass={"build_py": BuildPy, "sdist": Sdist},
    packages=packages(),
    package_dir={f"rtvc.{name}": name for name in MAPPED},
    package_data={"": ["py.typed", *(f"**/*.{suffix}" for suffix in DATA)]},
)
