"""Manifests and folders as people and enemies leave them: names, encodings, figures, formats."""

import json
import os
import threading
from pathlib import Path

import pytest
from standins import speech

from rtvc.cli import main
from rtvc.cli.teacher import read_texts
from rtvc.data.discover import OPENED
from rtvc.data.manifest import Entry, read_manifest, remark, write_manifest
from rtvc.data.prepare import Refusal, find
from rtvc.errors import ConfigError, TrainingError
from rtvc.evaluate.pairs import read_pairs
from rtvc.train.config import DataConfig, load_config
from tests.support.manifests import prepare, refusals, voice


@pytest.mark.parametrize("suffix", ["tsv", "jsonl"])
def test_names_that_break_lines_never_break_a_manifest(
    tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table cannot hold them and says so; JSON can. What is not UTF-8 neither can."""
    out = tmp_path / f"m.{suffix}"
    folder = tmp_path / "d"
    names = ["good.wav", "nl\nname.wav", "tab\tname.wav", "cr\rname.wav", "odd\x1b[31m\u2028.wav"]
    for name in names:
        voice(folder / "ben" / name)
    voice(folder / "an\tna" / "a.wav")
    latin = os.fsdecode(b"Gr\xfc\xdf.wav")
    voice(folder / "ben" / latin)
    told = prepare(folder, out, capsys)
    kept = {"good.wav", names[4]} if suffix == "tsv" else {*names, "a.wav"}
    assert told["recordings"] == len(kept) and told["refused"] == 7 - len(kept)
    entries = read_manifest(out)
    assert {entry.path.name for entry in entries} == kept and all(
        entry.path.is_file() for entry in entries
    )
    assert main(["data", "show", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["missing_files"] == 0
    reasons = refusals(out)
    assert (
        reasons[str(folder.resolve() / "ben" / "Gr\\udcfc\\udcdf.wav")]
        == "its path is not UTF-8: rename it"
    )
    if suffix == "tsv":
        broken = "its path holds a tab or a line break: rename it, or write a .jsonl"
        assert reasons[str(folder.resolve() / "ben" / "nl\\nname.wav")] == broken
        assert reasons[str(folder.resolve() / "an\\tna" / "a.wav")] == broken
    else:
        assert {entry.speaker for entry in entries} == {"ben", "an\tna"}
    assert all(text.isprintable() for row in reasons.items() for text in row)


def test_an_entry_that_cannot_be_in_a_table_is_no_line_of_it(tmp_path: Path) -> None:
    for entry in (Entry(tmp_path / "a\tb.wav", "x"), Entry(tmp_path / "a.wav", "x\ny")):
        with pytest.raises(TrainingError, match="holds a tab or a line break"):
            write_manifest(tmp_path / "m.tsv", [entry])
        write_manifest(tmp_path / "m.jsonl", [entry])
        assert read_manifest(tmp_path / "m.jsonl") == [entry]
    assert os.listdir(tmp_path) == ["m.jsonl"]
    assert remark(Path("a\tb"), "two\nlines \x1b[1m") == "a\\tb\ttwo lines \\x1b[1m"


def test_everything_that_libsndfile_opens_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also by its first bytes under another name; what only looks like a recording is counted as
    refused."""
    formats = {
        "two.aif": "AIFF",
        "three.caf": "CAF",
        "six.w64": "W64",
        "seven.rf64": "RF64",
        "eight.sph": "NIST",
    }
    formats |= {
        "nine.snd": "AU",
        "ten.aifc": "AIFF",
        "eleven.voc": "VOC",
        "noname": "FLAC",
        "x.backup": "WAV",
    }
    for name, form in formats.items():
        voice(tmp_path / "d" / "a" / name, form)
    voice(tmp_path / "d" / "a" / "four.oga", "OGG", "VORBIS")
    (tmp_path / "d" / "a" / "five.m4a").write_bytes(b"\0\0\0\x20ftypM4A \0\0\0\0" + bytes(3000))
    (tmp_path / "d" / "a" / "video.webm").write_bytes(b"\x1aE\xdf\xa3" + bytes(3000))
    (tmp_path / "d" / "a" / "six.ape").write_bytes(b"MAC " + bytes(3000))
    for name in ("notes.txt", "table.tsv", "picture.webp", ".hidden.wav"):
        (tmp_path / "d" / "a" / name).write_bytes(b"RIFF\0\0\0\0WEBP" + bytes(99))
    (tmp_path / "d" / "folder.wav").mkdir()
    os.mkfifo(tmp_path / "d" / "a" / "pipe.wav")
    told = prepare(tmp_path / "d", tmp_path / "m.tsv", capsys)
    found = {entry.path.name for entry in read_manifest(tmp_path / "m.tsv")}
    assert found == {*formats, "four.oga"} and told["recordings"] == 11
    reasons = {Path(path).name: reason for path, reason in refusals(tmp_path / "m.tsv").items()}
    for name in ("five.m4a", "video.webm"):
        assert f"{name} cannot be read as audio (" in reasons.pop(name)
    assert reasons == {
        "six.ape": "format not readable: .ape files cannot be opened here, convert to WAV or FLAC",
        "pipe.wav": "expected a file, got a pipe",
    }
    assert told["reasons"] == {
        "cannot be read": 2,
        "not readable": 1,
        "expected a file, got a pipe": 1,
    }
    assert {".aif", ".caf", ".oga", ".w64", ".mp3", ".opus", ".flac"} <= OPENED


def test_recordings_of_phones_are_found_and_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("av", reason="PyAV is not installed: pip install 'rtvc-engine[formats]'")
    from containers import contained

    for name in ("one.m4a", "two.webm", "three.wma", "noname"):
        data = contained(Path(name).suffix or ".m4a", speech(2.0, 48_000), 48_000)
        (tmp_path / "d").mkdir(exist_ok=True)
        (tmp_path / "d" / name).write_bytes(data)
    told = prepare(tmp_path / "d", tmp_path / "m.tsv", capsys)
    seconds = {entry.path.name: entry.seconds for entry in read_manifest(tmp_path / "m.tsv")}
    assert told["refused"] == 0
    assert seconds == {
        "one.m4a": 2.0,
        "two.webm": 2.0,
        "three.wma": pytest.approx(2.0, abs=0.1),
        "noname": 2.0,
    }


def test_a_recording_that_was_cut_off_does_not_teach_its_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = voice(tmp_path / "d" / "cut.wav").read_bytes()
    (tmp_path / "d" / "cut.wav").write_bytes(data[:60_000])
    voice(tmp_path / "d" / "whole.wav")
    assert prepare(tmp_path / "d", tmp_path / "m.tsv", capsys)["reasons"] == {"cut off": 1}
    (reason,) = refusals(tmp_path / "m.tsv").values()
    assert "holds 59956 of the 72000 bytes of sound" in reason


@pytest.mark.parametrize("name", ["c.txt", "c.lab", "c.normalized.txt"])
def test_texts_are_utf_8_with_or_without_a_mark(tmp_path: Path, name: str) -> None:
    voice(tmp_path / "ben" / "c.wav")
    text = tmp_path / "ben" / name
    text.write_bytes(b"\xef\xbb\xbfHello there.\r\n")
    (entry,) = find(tmp_path)
    assert isinstance(entry, Entry) and entry.text == "Hello there."
    for data, reason in (
        (b"Gr\xfc\xdf Gott\n", f"{name} is not UTF-8 (byte 0xfc at 2), save it as UTF-8"),
    ):
        text.write_bytes(data)
        assert find(tmp_path) == [
            Refusal(tmp_path / "ben" / "c.wav", f"its text cannot be read: {reason}")
        ]
    text.write_bytes("Hello".encode("utf-16-le"))
    (refused,) = find(tmp_path)
    assert (
        isinstance(refused, Refusal)
        and f"{name} holds zero bytes, save it as UTF-8" in refused.reason
    )


def test_one_bad_line_of_a_chapter_spoils_one_recording(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("84-1-0000", "84-1-0001", "84-1-0002"):
        voice(tmp_path / "84" / "1" / f"{name}.flac", "FLAC")
    lines = b"\xef\xbb\xbf84-1-0000 ONE\r\n84-1-0001 Gr\xfc\xdf\r\n84-1-0002 THREE\r\n"
    (tmp_path / "84" / "1" / "84-1.trans.txt").write_bytes(lines)
    assert prepare(tmp_path, tmp_path / "m.tsv", capsys)["reasons"] == {"not UTF-8": 1}
    assert [(e.path.stem, e.text) for e in read_manifest(tmp_path / "m.tsv")] == [
        ("84-1-0000", "ONE"),
        ("84-1-0002", "THREE"),
    ]


def test_a_byte_order_mark_is_no_part_of_a_column(tmp_path: Path) -> None:
    for name, content in (
        ("m.tsv", "path\ttext\na.wav\thi\n"),
        ("m.jsonl", '{"path": "a.wav", "text": "hi"}\n'),
    ):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.encode().replace(b"\n", b"\r\n"))
        assert read_manifest(tmp_path / name) == [
            Entry(tmp_path / "a.wav", tmp_path.name, text="hi")
        ]
        assert read_texts(tmp_path / name, None) == ["hi"]
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "a.wav").touch()
    head = "source\ttarget_speaker\treferences\ttranscript\n"
    (tmp_path / "p.tsv").write_bytes(b"\xef\xbb\xbf" + f"{head}a.wav\tben\ta.wav\thi\n".encode())
    assert [pair.target for pair in read_pairs(tmp_path / "p.tsv")] == ["ben"]
    (tmp_path / "p.tsv").write_bytes(head.encode() + b"a.wav\tben\ta.wav\tGr\xfc\xdf\n")
    with pytest.raises(ConfigError, match=r"cannot be read .*save it as UTF-8"):
        read_pairs(tmp_path / "p.tsv")
    (tmp_path / "c.toml").write_bytes(b'\xef\xbb\xbfmanifest = "m.tsv"\n')
    assert load_config(DataConfig, tmp_path / "c.toml").manifest == Path("m.tsv")


def test_file_lists_of_vits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`path|speaker|text`, or `path|text` of one speaker; text of three fields may hold a bar."""
    for name in ("a", "b"):
        voice(tmp_path / "wavs" / f"{name}.wav")
    listed = tmp_path / "train.txt"
    listed.write_bytes(b"\xef\xbb\xbfwavs/a.wav|ben|Hello there.\nwavs/b.wav|7|One | two\n")
    assert [(e.path, e.speaker, e.text) for e in read_manifest(listed)] == [
        (tmp_path / "wavs" / "a.wav", "ben", "Hello there."),
        (tmp_path / "wavs" / "b.wav", "7", "One | two"),
    ]
    assert prepare(listed, tmp_path / "m.tsv", capsys)["with_text"] == 2
    listed.write_text("wavs/a.wav|Hello\nwavs/b.wav|There\n")
    assert [(e.speaker, e.text) for e in read_manifest(listed)] == [
        ("wavs", "Hello"),
        ("wavs", "There"),
    ]
    listed.write_text("wavs/a.wav|ben|Hello\nwavs/b.wav|There\n")
    with pytest.raises(TrainingError, match=r"line 2: expected path\|speaker\|text, got 2 fields"):
        read_manifest(listed)


HOSTILE = {
    "inf": (
        '{"path": "a.wav", "bandwidth_rate": "inf"}',
        "expected bandwidth_rate from 0 to 1e.*got inf",
    ),
    "nan": ('{"path": "a.wav", "seconds": NaN}', "expected seconds from 0 to inf, got nan"),
    "minus": ('{"path": "a.wav", "seconds": -1}', "expected seconds from 0 to inf, got -1"),
    "huge": (
        '{"path": "a.wav", "bandwidth_rate": 1e300}',
        "expected bandwidth_rate from 0 .* got 1e\\+300",
    ),
    "null": ("null", "expected a JSON object, got a NoneType"),
    "list": ("[1,2]", "expected a JSON object, got a list"),
    "deep": ('{"path": ' + "[" * 100_000, "nested too deeply"),
    "inside": ('{"path": {"a": 1}}', "a text or number as 'path', got a list"),
    "long": (
        json.dumps({"path": "x" * 5000}),
        "no file can be called 'x{60}'.* \\(File name too long\\)",
    ),
    "zero": (json.dumps({"path": "a\0b"}), "it holds a zero byte"),
    "surrogate": ('{"path": "\\ud800.wav"}', "no file can be called"),
    "digits": ('{"path": "a.wav", "seconds": ' + "9" * 5000 + "}", "cannot be read as JSON"),
    "nameless": ('{"speaker": "ben"}', "expected a path among .*, got speaker"),
    "cut": ('{"path": ', "cannot be read as JSON"),
    "endless": ('{"path": "' + "x" * (1 << 20) + '"}', "at most 1048576 characters, got 1048\\d+"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_line_is_named_and_spoils_no_other(
    tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line, reason = HOSTILE[case]
    path = tmp_path / "m.jsonl"
    voice(tmp_path / "good.wav")
    path.write_text(f'{{"path": "good.wav"}}\n{line}\n')
    with pytest.raises(TrainingError, match=f"m.jsonl, line 2: .*{reason}"):
        read_manifest(path)
    told = prepare(path, tmp_path / "out.tsv", capsys)
    assert (told["recordings"], told["refused"]) == (1, 1)
    assert list(refusals(tmp_path / "out.tsv")) == [f"{path}, line 2"]


def test_lines_of_a_table_are_judged_one_by_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    voice(tmp_path / "a.wav")
    rows = [b"path\tspeaker\tseconds\ttext", b"a.wav\tben\t1.5\thi", b"a.wav\tben\tlong\thi"]
    rows += [b"name.wav", b"a.wav\tben\t1\tGr\xfc\xdf", b"\tben\t1\thi", b"a.wav\tanna"]
    (tmp_path / "m.tsv").write_bytes(b"\n".join(rows))
    told = prepare(tmp_path / "m.tsv", tmp_path / "o.tsv", capsys)
    assert told["recordings"] == 2 and told["speakers"] == 2
    reasons = {Path(path).name: reason for path, reason in refusals(tmp_path / "o.tsv").items()}
    assert (
        "could not convert" in reasons["m.tsv, line 3"]
        and "0xfc is not UTF-8" in reasons["m.tsv, line 5"]
    )
    assert (
        "expected a path" in reasons["m.tsv, line 6"]
        and "not there" in reasons["name.wav"]
        and len(reasons) == 4
    )


def test_a_manifest_is_not_written_over_its_source_or_into_a_pipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And all of it is said before the first recording is checked."""
    voice(tmp_path / "a.wav")
    table, words = tmp_path / "m.tsv", "path\na.wav\n"
    table.write_text(words)
    os.mkfifo(tmp_path / "p.tsv")

    def never(*arguments: object) -> None:
        raise AssertionError("the work was begun")

    with monkeypatch.context() as patched:
        patched.setattr("rtvc.data.prepare.find", never)
        cases = {
            "m.tsv": "is read): name another, or say --force",
            "p.tsv": "expected a file, beside which others lie, got a pipe",
        }
        cases |= {
            "x.csv": "ending in .tsv or .jsonl, got '.csv'",
            "none/m.tsv": "there is no folder",
        }
        for name, said in cases.items():
            assert main(["data", "prepare", str(table), "-o", str(tmp_path / name)]) == 2
            assert said in capsys.readouterr().err.replace("\n", " ")
    assert table.read_text() == words
    assert prepare(table, table, capsys, "--force")["recordings"] == 1
    assert table.read_text().startswith("path\tspeaker")


def test_deep_toml_is_no_configuration(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    for text in ("x = " + "[" * 100_000, "a." * 100_000 + "b = 1", "x = " + "{a=" * 50_000):
        path.write_text(text)
        with pytest.raises(ConfigError):
            load_config(DataConfig, path)
    path.write_text('manifest = "m.tsv"\n')
    with pytest.raises(ConfigError, match=r"--set batch=.*: it nests values deeper than 16"):
        load_config(DataConfig, path, ["batch=" + "[" * 100_000])


def test_reports_of_threads_keep_their_filters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Many files in many threads: every cut one is refused, no warning is printed."""
    for number in range(24):
        data = voice(tmp_path / "d" / f"{number}.wav").read_bytes()
        if number % 2:
            (tmp_path / "d" / f"{number}.wav").write_bytes(data[:60_000])
    before = set(threading.enumerate())
    told = prepare(tmp_path / "d", tmp_path / "m.tsv", capsys, "--jobs", "8")
    assert (told["recordings"], told["refused"]) == (12, 12)
    assert not [thread for thread in threading.enumerate() if thread not in before]
