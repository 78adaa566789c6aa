"""Packaging. The four top-level folders install as `rtvc.kernels`, `rtvc.engine`, `rtvc.clients`,
`rtvc.benchmarks`.

The links `rtvc/kernels -> ../kernels` (and so on) make the same import names true in a checkout;
the folders carry no `__init__.py`, so they can never shadow an installed package of the same name.
"""

import os
from pathlib import Path

from setuptools import setup

MAPPED = ("kernels", "engine", "clients", "benchmarks")
ROOT = Path(__file__).parent


def packages() -> list[str]:
    """Every folder that holds files, the mapped ones under their `rtvc.` names; the links inside
    `rtvc/` are not followed."""
    found = []
    for top in ("rtvc", *MAPPED):
        prefix = "" if top == "rtvc" else "rtvc."
        for folder, inner, files in os.walk(ROOT / top):
            inner[:] = sorted(name for name in inner if name != "__pycache__")
            if files:
                found.append(prefix + ".".join(Path(folder).relative_to(ROOT).parts))
    return found


DATA = ("safetensors", "json", "toml", "voice", "html", "js", "css", "svg", "cu", "wav", "flac")
"""Suffixes of files that are not Python and belong to the package, at any depth below it."""

setup(
    packages=packages(),
    package_dir={f"rtvc.{name}": name for name in MAPPED},
    package_data={"": ["py.typed", *(f"**/*.{suffix}" for suffix in DATA)]},
)
