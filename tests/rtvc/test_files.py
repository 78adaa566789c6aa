"""Files are whole or as they were before; what is no regular file is written through and stays."""

import contextlib
import errno
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from rtvc.errors import OutputError
from rtvc.files import (
    TEMPORARY,
    check_folder,
    check_target,
    descriptor_of,
    kind,
    read_json,
    replacing,
    write,
    write_json,
)

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def draining(path: Path) -> Iterator[list[bytes]]:
    """Reads a FIFO to its end, beside the block."""
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()), daemon=True)
    reader.start()
    yield read
    reader.join(120)


def program(code: str, **streams: object) -> "subprocess.CompletedProcess[bytes]":
    """Runs Python code in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, check=False, timeout=60, **streams)  # type: ignore[call-overload, no-any-return]


def test_a_file_takes_its_place_when_all_went_well(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.npz"
    write(path, "first")
    with replacing(path) as fresh:
        fresh.write_text("second")
        assert fresh.parent == path.parent and fresh.suffix == ".npz"
        assert fresh.name.startswith(TEMPORARY) and TEMPORARY.startswith(".")
        assert path.read_text() == "first", "not before the block has ended"
    assert path.read_text() == "second" and os.listdir(path.parent) == ["a.npz"]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})

    def half(sink: BinaryIO) -> None:
        sink.write(b"{")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(path, half)
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, float("nan"))
    assert path.read_text() == '{\n  "a": 1\n}\n' and os.listdir(tmp_path) == ["a.json"]


def test_what_is_written_may_be_read_by_others_unless_it_was_kept_from_them(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write(path, b"1")
    before = os.umask(0)
    os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666 & ~before
    path.chmod(0o600)
    write(path, b"2")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    write(tmp_path / "a", memoryview(b"1"))
    with pytest.raises(OutputError, match=r"a/b cannot be written \(.*\): "):
        write(tmp_path / "a" / "b", b"2")
    with (
        pytest.raises(OSError, match=r"there is no folder .*none"),
        replacing(tmp_path / "none" / "b"),
    ):
        raise AssertionError("nothing is written where there is no folder")
    with pytest.raises(
        OutputError, match=r"a cannot be written \(expected a folder, it is a file\): name another"
    ):
        check_folder(tmp_path / "a")
    assert check_folder(tmp_path / "new" / "deep") == tmp_path / "new" / "deep"
    assert os.listdir(tmp_path) == ["a"], "asking makes nothing"


def test_links_are_followed_and_stay_links(tmp_path: Path) -> None:
    """Also those that lead nowhere yet, and those through several folders."""
    (tmp_path / "there").mkdir()
    (tmp_path / "real").write_text("old")
    for name, target in (("link", "real"), ("dangling", "there/new"), ("chain", "dangling")):
        (tmp_path / name).symlink_to(target)
    write(tmp_path / "link", "one")
    write(tmp_path / "chain", "two")
    assert (tmp_path / "real").read_text() == "one" and (
        tmp_path / "there" / "new"
    ).read_text() == "two"
    assert all((tmp_path / name).is_symlink() for name in ("link", "dangling", "chain"))
    assert not (tmp_path / "real").is_symlink() and os.listdir(tmp_path / "there") == ["new"]
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(OutputError, match="links lead in a circle"):
        write(tmp_path / "round", "x")


@pytest.mark.parametrize("content", [b"12345" * 50_000, lambda sink: sink.write(b"12345" * 50_000)])
def test_a_fifo_gets_everything_and_stays_a_fifo(
    tmp_path: Path, content: bytes | Callable[[BinaryIO], object]
) -> None:
    path, link = tmp_path / "p.wav", tmp_path / "link"
    os.mkfifo(path)
    link.symlink_to(path)
    for target in (path, link):
        assert check_target(target) == target and kind(target) == "pipe"
        with draining(path) as read:
            write(target, content)
        assert read == [b"12345" * 50_000]
        assert stat.S_ISFIFO(os.stat(path).st_mode) and link.is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["link", "p.wav"]


def test_a_failed_writer_sends_nothing_through_a_fifo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "p") as fresh:
        fresh.write_bytes(b"half")
        raise ZeroDivisionError
    reader = os.open(tmp_path / "p", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert os.read(reader, 10) == b""
    finally:
        os.close(reader)


def test_devices_stay_devices(tmp_path: Path) -> None:
    """/dev/null itself, as everybody; a copy of it, as root, who could replace it."""
    before = os.stat("/dev/null")
    write("/dev/null", b"gone")
    after = os.stat("/dev/null")
    assert stat.S_ISCHR(after.st_mode) and (after.st_rdev, after.st_ino) == (
        before.st_rdev,
        before.st_ino,
    )
    copy = tmp_path / "n.voice"
    try:
        os.mknod(copy, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes devices")
    with contextlib.suppress(
        OutputError
    ):  # a file system may forbid devices: then nothing is replaced either
        write(copy, b"gone")
    assert stat.S_ISCHR(os.stat(copy).st_mode) and os.listdir(tmp_path) == ["n.voice"]


@pytest.mark.parametrize("path", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
def test_standard_output_is_written_through_in_order(tmp_path: Path, path: str) -> None:
    """Redirected to a file or a pipe, between other things that are printed."""
    if path == "link":
        path = str(tmp_path / "link")
        os.symlink("/dev/stdout", path)
    code = (
        f"from rtvc.files import *\nprint('a')\nassert descriptor_of({path!r}) =="
        f" 1\nwrite({path!r}, 'b\\n')\nprint('c')"
    )
    assert program(code, stdout=subprocess.PIPE).stdout == b"a\nb\nc\n"
    with (tmp_path / "out").open("wb") as out:
        assert program(code, stdout=out).returncode == 0
    assert (tmp_path / "out").read_bytes() == b"a\nb\nc\n"
    assert stat.S_ISLNK(os.lstat("/dev/stdout").st_mode)


def test_descriptors_are_told_from_files(tmp_path: Path) -> None:
    assert descriptor_of("/dev/fd/17") == 17 and descriptor_of("/dev/stderr") == 2
    assert descriptor_of(tmp_path / "1") is None and descriptor_of("x" * 5000) is None
    reader, writer = os.pipe()
    try:
        assert check_target(f"/dev/fd/{writer}")
        with pytest.raises(OutputError, match="not open for writing"):
            check_target(f"/dev/fd/{reader}")
    finally:
        os.close(reader)
        os.close(writer)
    with pytest.raises(OutputError, match="not open for writing"):
        check_target(f"/dev/fd/{writer}")


def test_a_reader_that_leaves_is_named(tmp_path: Path) -> None:
    code = """
from rtvc.errors import OutputError
from rtvc.files import write
try:
    write("-", bytes(1 << 20))
except OutputError as error:
    open("said", "w").write(str(error))
"""
    reader, writer = os.pipe()
    os.close(reader)
    program(code, stdout=writer, cwd=tmp_path)
    os.close(writer)
    assert "- cannot be written (Broken pipe)" in (tmp_path / "said").read_text()


@pytest.mark.parametrize("length", [200, 246, 255])
def test_names_may_be_as_long_as_the_file_system_allows(tmp_path: Path, length: int) -> None:
    path = tmp_path / ("x" * (length - 5) + ".json")
    write_json(path, 1)
    assert read_json(path) == 1 and os.listdir(tmp_path) == [path.name]
    with pytest.raises(OutputError, match=r"\(the name is too long\): take a shorter one"):
        check_target(tmp_path / ("音" * 86))
    odd = tmp_path / ("x." + "y" * 250)
    write(odd, b"1")
    assert odd.read_bytes() == b"1", "a suffix may be as long as a name"


def test_what_cannot_be_written_is_said_before(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    cases = {
        "/proc/n.wav": "no file can be made in /proc",
        str(tmp_path / "folder"): "it is a folder",
        str(tmp_path / "none" / "x"): "there is no folder",
        "a\0b": "null byte",
    }
    for path, reason in cases.items():
        with pytest.raises(OutputError, match=reason) as caught:
            check_target(path)
        assert isinstance(caught.value, OSError)
    assert check_target(tmp_path / "none" / "x", folders=True) == tmp_path / "none" / "x"
    assert os.listdir(tmp_path) == ["folder"] and os.listdir(tmp_path / "folder") == []


def test_a_protected_file_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    write(path, b"1")
    path.chmod(0o400)
    monkeypatch.setattr(
        os, "access", lambda path, mode: mode != os.W_OK
    )  # as for everybody but root
    for attempt in (check_target, lambda path: write(path, b"2")):
        with pytest.raises(OutputError, match="permission denied"):
            attempt(path)
    assert path.read_bytes() == b"1"


def test_a_source_is_not_overwritten(tmp_path: Path) -> None:
    """By its name, through a link, or under another name of the same file."""
    source = tmp_path / "self.flac"
    source.write_bytes(b"1")
    (tmp_path / "link").symlink_to(source)
    os.link(source, tmp_path / "twin")
    for name in ("self.flac", "link", "twin"):
        with pytest.raises(
            OutputError, match=r"it is .*self.flac, which is read\): name another, or say --force"
        ):
            check_target(tmp_path / name, sources=[tmp_path / "other", source], force=False)
        assert check_target(tmp_path / name, sources=[source], force=True)
    assert check_target(tmp_path / "new", sources=[source]) and check_target(
        "/dev/null", sources=["/dev/null"]
    )


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    def full(sink: BinaryIO) -> None:
        sink.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OutputError, match=r"a cannot be written \(no space is left\)"):
        write(tmp_path / "a", full, durable=True)
    assert os.listdir(tmp_path) == []
    write(tmp_path / "a", b"1", durable=True)
    assert (tmp_path / "a").read_bytes() == b"1"


def test_json_that_is_hostile_is_a_value_error(tmp_path: Path) -> None:
    (tmp_path / "deep").write_text("[" * 100_000)
    (tmp_path / "mark").write_bytes(b"\xef\xbb\xbf[1]")
    (tmp_path / "latin").write_bytes(b'"Gr\xfc\xdf"')
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json(tmp_path / "deep")
    with pytest.raises(ValueError, match="utf-8"):
        read_json(tmp_path / "latin")
    assert read_json(tmp_path / "mark") == [1]
