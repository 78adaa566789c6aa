"""Arrays in files: no head is believed, nothing is unpickled, what is damaged is told as such."""

import io
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from rtvc.arrays import LARGEST, opened_arrays, read_array, read_arrays
from rtvc.data.utterance import facts_of, load_utterance
from rtvc.errors import AudioError


def npy(shape, descr="<i2", data=b"", version=(1, 0)):
    """An array whose head says this, whatever follows."""
    head = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H", len(head)) + head + data


def saved(array):
    sink = io.BytesIO()
    np.save(sink, array)
    return sink.getvalue()


def archive(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)
    return path


HOSTILE = {
    "more than follows": npy("(1000000000000,)"),
    "a product beyond 64 bits": npy("(4294967296, 4294967296, 4294967296)"),
    "less than follows": npy("(1,)", data=bytes(64)),
    "a negative axis": npy("(-2,)", data=bytes(4)),
    "two negative axes": npy("(-1, -2)", data=bytes(4)),
    "no shape": npy("'x'"),
    "objects": npy("(1,)", "|O", pickle.dumps(print)),
    "no type": npy("(1,)", "nonsense", bytes(2)),
    "a type of nothing": npy("(100,)", "<V0"),
    "another version": npy("(1,)", data=bytes(2), version=(3, 0)),
    "a later version": npy("(1,)", data=bytes(2), version=(9, 9)),
    "no head": b"\x93NUMPY\x01\x00",
    "not an array": b"hello",
    "nothing": b"",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_head_is_not_believed(tmp_path, case):
    bundle = archive(tmp_path / "a.npz", audio=HOSTILE[case])
    alone = tmp_path / "a.npy"
    alone.write_bytes(HOSTILE[case])
    tracemalloc.start()
    with pytest.raises(AudioError, match="cannot be read as"):
        read_arrays(bundle)
    with pytest.raises(AudioError, match="cannot be read as"), opened_arrays(bundle) as arrays:
        arrays.shape("audio")
    with pytest.raises(AudioError, match="cannot be read as"):
        read_array(alone)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_a_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
        file.open("audio.npy", "w", force_zip64=True) as sink,
    ):
        for _ in range(LARGEST // (1 << 24) + 1):
            sink.write(bytes(1 << 24))
    assert path.stat().st_size < 10_000_000
    with pytest.raises(AudioError, match="at most"):
        read_arrays(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_what_is_cut_or_changed_is_told(tmp_path, share):
    path = archive(tmp_path / "a.npz", audio=saved(np.arange(5_000, dtype=np.int16)))
    data = bytearray(path.read_bytes())
    at = int(share * len(data))
    (tmp_path / "cut.npz").write_bytes(data[:at])
    for read in (read_arrays, load_utterance, facts_of):
        with pytest.raises(AudioError):
            read(tmp_path / "cut.npz")
    data[at : at + 8] = bytes(byte ^ 255 for byte in data[at : at + 8])
    (tmp_path / "changed.npz").write_bytes(data)
    with pytest.raises(AudioError):
        read_arrays(tmp_path / "changed.npz")


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.int16).reshape(3, 4),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.array("Grüß Gott"),
        np.array(""),
        np.zeros((0, 3), np.float32),
        np.array(2.5),
        np.array([True, False]),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_come_back_as_they_were_and_can_be_written_to(tmp_path, array):
    path = archive(tmp_path / "a.npz", audio=saved(array))
    with opened_arrays(path) as arrays:
        assert arrays.names == ["audio"] and arrays.shape("audio") == array.shape
        back = arrays["audio"]
    np.testing.assert_array_equal(back, array)
    assert back.dtype == array.dtype and back.flags.writeable
    (tmp_path / "a.npy").write_bytes(saved(array))
    np.testing.assert_array_equal(read_array(tmp_path / "a.npy"), array)
