"""Packaging. The four top-level folders install as `rtvc.kernels`, `rtvc.engine`, `rtvc.clients`, `rtvc.benchmarks`.

The links `rtvc/kernels -> ../kernels` (and so on) make the same import names true in a checkout; the folders carry
no `__init__.py`, so they can never shadow an installed package of the same name.
"""

from pathlib import Path

from setuptools import setup

MAPPED = ("kernels", "engine", "clients", "benchmarks")
ROOT = Path(__file__).parent


def packages() -> list[str]:
    """Every package name, the mapped folders under their `rtvc.` names."""
    found = [
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in sorted((ROOT / "rtvc").rglob("__init__.py"))
        if path.parent.relative_to(ROOT).parts[1:2] not in [(name,) for name in MAPPED]
    ]
    for name in MAPPED:
        folders = [ROOT / name, *(p for p in sorted((ROOT / name).rglob("*")) if p.is_dir())]
        found += [
            "rtvc." + ".".join(folder.relative_to(ROOT).parts)
            for folder in folders
            if "__pycache__" not in folder.parts and folder.is_dir() and any(f.is_file() for f in folder.iterdir())
        ]
    return found


DATA = ("safetensors", "json", "toml", "voice", "html", "js", "css", "svg", "cu", "wav", "flac")
"""Suffixes of files that are not Python and belong to the package, at any depth below it."""

setup(
    packages=packages(),
    package_dir={f"rtvc.{name}": name for name in MAPPED},
    package_data={"": ["py.typed", *(f"**/*.{suffix}" for suffix in DATA)]},
)
