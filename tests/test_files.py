"""Files are whole or as they were before."""

import os
from pathlib import Path
from typing import BinaryIO

import pytest

from rtvc.files import replacing, write, write_json


def test_a_file_takes_its_place_when_all_went_well(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.npz"
    write(path, "first")
    with replacing(path) as fresh:
        fresh.write_text("second")
        assert fresh.parent == path.parent and fresh.suffix == ".npz" and fresh.name.startswith(".")
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


def test_what_is_written_may_be_read_by_others(tmp_path: Path) -> None:
    write(tmp_path / "a", b"1")
    before = os.umask(0)
    os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~before


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    write(tmp_path / "a", memoryview(b"1"))
    with pytest.raises(OSError):
        write(tmp_path / "a" / "b", b"2")
    with pytest.raises(OSError), replacing(tmp_path / "none" / "b") as fresh:
        fresh.write_text("2")
