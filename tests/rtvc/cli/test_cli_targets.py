"""What commands read and write, and that all of it is looked at before the work."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile
from standins import recordings_here

import rtvc.engine.loading
import rtvc.models_by_name
from rtvc.cli import main
from rtvc.voices.voice import Voice

ROOT = Path(__file__).parents[3]


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with recordings, the tiny models behind the command line, a cache of its own."""
    monkeypatch.setenv("RTVC_CACHE", str(tmp_path / "cache"))
    return recordings_here(monkeypatch, tmp_path)


@pytest.fixture
def idle(files: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same folder, but no model may be loaded."""

    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("a model was loaded before what fails at once was looked at")

    monkeypatch.setattr(rtvc.models_by_name, "load", never)
    monkeypatch.setattr(rtvc.engine.loading, "streaming", never)
    monkeypatch.setattr("rtvc.teacher.kokoro.Teacher.load", never)
    monkeypatch.setattr("rtvc.evaluate.converter.LibraryConverter", never)
    return files


def test_a_recording_goes_from_standard_input_to_standard_output(files: Path) -> None:
    """Sound alone is on standard output; words, or JSON, are beside it."""
    code = (
        "import sys; sys.path.insert(0, 'tests/support'); from standins import *; import pytest;"
        " from rtvc.cli import main\n"
    )
    code += (
        "with pytest.MonkeyPatch.context() as patch: use_tiny_models(patch);"
        " sys.exit(main(sys.argv[1:]))"
    )
    words = ["convert", "-", "-r", str(files / "anna.wav"), "-o", "-"]
    sound = (files / "me.wav").read_bytes()
    for more in ([], ["--json"]):
        command = [sys.executable, "-c", code, *words, *more]
        done = subprocess.run(command, input=sound, capture_output=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        (files / "got").write_bytes(done.stdout)
        facts = soundfile.info(files / "got")
        assert (facts.format, facts.subtype, facts.samplerate, facts.frames) == (
            "WAV",
            "PCM_16",
            24_000,
            48_000,
        )
        told = done.stderr.decode()
        lines = [
            line for line in told.splitlines() if not line.startswith("reference ")
        ]  # advice about a short one
        assert (
            json.loads(lines[0])["path"] == "-"
            if more
            else lines[0] == "standard input in the voice of anna: -"
        )


def test_a_fifo_hears_the_conversion_and_stays_a_fifo(files: Path) -> None:
    os.mkfifo("p.wav")
    heard: list[bytes] = []
    reader = threading.Thread(target=lambda: heard.append(Path("p.wav").read_bytes()))
    reader.start()
    assert main(["convert", "me.wav", "-r", "anna.wav", "-o", "p.wav"]) == 0
    reader.join(120)
    Path("got.wav").write_bytes(heard[0])
    assert soundfile.info("got.wav").frames == 48_000 and stat.S_ISFIFO(os.stat("p.wav").st_mode)
    os.symlink("real.wav", "link.wav")
    assert main(["convert", "me.wav", "-r", "anna.wav", "-o", "link.wav"]) == 0
    assert soundfile.info("real.wav").frames == 48_000 and os.path.islink("link.wav")
    assert main(["convert", "me.wav", "-r", "anna.wav", "-o", "/dev/null"]) == 0
    assert main(["voice", "create", "anna.wav", "-o", "/dev/null"]) == 0
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_name_that_is_not_utf_8_is_read_and_written(
    files: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source, target = (os.fsdecode(name) for name in (b"Gr\xfc\xdf.wav", b"gesagt-\xfc.wav"))
    os.rename("me.wav", source)
    assert main(["convert", source, "-r", "anna.wav", "-o", target]) == 0
    assert soundfile.info(os.fsencode(target)).frames == 48_000
    assert capfd.readouterr().out.startswith(
        "Gr\\udcfc\\udcdf.wav in the voice of anna: gesagt-\\udcfc.wav\n"
    )


@pytest.mark.parametrize(
    "words",
    [
        "convert me.wav -r anna.wav -o me.wav",
        "convert me.wav -r anna.wav -o ./link.wav",
        "convert me.wav -r anna.wav -o anna.wav",
        "convert me.wav --timbre anna.wav --prosody bob.wav -o bob.wav",
        "voice create a.voice -o a.voice",
        "voice create anna.wav --prosody a.voice -o a.voice",
        "voice mix a.voice:0.5 b.voice -o b.voice",
        "stream me.wav --voice x -o me.wav",
        "stream me.wav -r anna.wav -o anna.wav",
        "train export a.safetensors -o a.safetensors",
    ],
)
def test_no_source_is_overwritten_unless_forced(
    idle: Path, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    os.symlink("me.wav", "link.wav")
    for name in ("a.voice", "b.voice", "a.safetensors"):
        Path(name).write_bytes(b"as it was")
    before = {path.name: path.read_bytes() for path in idle.iterdir() if path.is_file()}
    assert main(words.split()) == 2
    error = capsys.readouterr().err.replace("\n", " ")
    assert "which is read): name another, or say --force to replace it" in error
    assert {path.name: path.read_bytes() for path in idle.iterdir() if path.is_file()} == before


def test_forced_the_source_is_replaced(files: Path) -> None:
    before = Path("me.wav").read_bytes()
    assert main(["convert", "me.wav", "-r", "anna.wav", "-o", "me.wav", "--force"]) == 0
    assert soundfile.info("me.wav").samplerate == 24_000 and Path("me.wav").read_bytes() != before
    assert main(["voice", "create", "anna.wav", "-o", "a.voice"]) == 0
    first = Voice.load("a.voice")
    assert main(["voice", "mix", "a.voice", "-o", "a.voice", "--name", "new", "--force"]) == 0
    assert Voice.load("a.voice").name == "new" and bool(
        (Voice.load("a.voice").acoustic == first.acoustic).all()
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("convert me.wav -r anna.wav -o /proc/n.wav", "no file can be made in /proc"),
        ("convert me.wav -r gone.wav", "expected an audio file, gone.wav is not there"),
        ("convert me.wav -r anna.wav --timbre folder", "folder is a folder"),
        ("convert me.wav -r anna.wav -o folder", "ends in .wav"),
        ("convert me.wav -r anna.wav -o folder.wav", "it is a folder)"),
        (
            "voice create anna.wav -o noext",
            "noext: expected a name ending in .voice, got no suffix: write noext.voice",
        ),
        (
            "voice create anna.wav -o a.wav",
            "expected a name ending in .voice, got '.wav': write a.wav.voice",
        ),
        ("voice create gone.wav -o a.voice", "gone.wav is not there"),
        ("voice create anna.wav -o gone/a.voice", "there is no folder gone"),
        ("teacher say hello -o /proc/n.wav", "no file can be made in /proc"),
        ("teacher pair hello -o a.wav ./a.wav --to x", "expected two files, got"),
        ("evaluate --pairs p.tsv --json p.tsv --limit 1", "which is read"),
        ("evaluate --pairs p.tsv --json x.png", "is the picture's own name"),
        ("evaluate --pairs p.tsv --report me.wav", "(expected a folder, it is a file)"),
        ("evaluate --pairs p.tsv --chunk 25 --backend gold", "got 'gold'"),
        ("bench stream --json folder", "it is a folder)"),
        ("bench stream --json me.wav", "me.wav is no results file"),
        ("bench stream --engine gold", "got 'gold'"),
        ("bench components --picture x.gold", "ends in .png, .svg, .pdf, got x.gold"),
        ("bench components --compare gone.json", "gone.json is no results file"),
        ("bench stalls --json /proc/x.json", "no file can be made in /proc"),
        ("bench quality --json folder", "it is a folder)"),
        ("build --backend onnx -o me.wav", "(expected a folder, it is a file)"),
        ("build --backend gold", "got 'gold'"),
        ("train export run -o weights", "ends in .safetensors, got weights"),
        ("train recipe m.tsv -o /proc/w.safetensors", "no file can be made in /proc"),
        ("data label m.tsv -o me.wav", "(expected a folder, it is a file)"),
        ("live --voice gone.wav", "gone.wav is not there"),
        ("live --voice anna.wav --engine gold", "got 'gold'"),
        ("live --voice anna.wav --backend gold", "got 'gold'"),
        ("serve --voices me.wav", "(expected a folder, it is a file)"),
        ("serve --backend gold", "got 'gold'"),
        (
            "stream me.wav --voice x --url 127.0.0.1:8765",
            "expected an address like ws://127.0.0.1:8765, got '127.0.0.1:8765'",
        ),
        ("stream me.wav --voice x --url ws://host:port", "got one that cannot be read"),
        (
            "stream me.wav -r a.voice",
            "a.voice is a voice file, -r takes recordings: name a voice of the server with --voice",
        ),
        ("stream gone.wav --voice x", "gone.wav is not there"),
        ("stream --mic --voice x --input-device nobody", "input device"),
    ],
)
def test_what_fails_at_once_is_said_before_the_work(
    idle: Path, capsys: pytest.CaptureFixture[str], words: str, said: str
) -> None:
    for folder in ("folder", "folder.wav"):
        os.mkdir(folder)
    for name in ("p.tsv", "a.voice"):
        Path(name).touch()
    before = sorted(os.listdir())
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error.replace("\n", " "), error
    assert sorted(set(os.listdir()) - {"cache"}) == before


def test_live_looks_for_devices_first(
    idle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is prepared for a machine that can speak and hear, and it is said that this takes
    time."""
    from rtvc.clients.live import config as stream
    from rtvc.errors import DeviceError

    asked: list[str] = []

    def pick(wanted: str | None, kind: str, known: None = None) -> SimpleNamespace:
        asked.append(kind)
        if wanted == "gone":
            raise DeviceError("no device fits gone")
        return SimpleNamespace(by_server=False)

    monkeypatch.setattr(stream, "pick", pick)
    for side in ("--input", "--output"):
        assert main(["live", "--voice", "anna.wav", side, "gone"]) == 2
        assert capsys.readouterr().err == "error: no device fits gone\n"
    assert main(["live", "--voice", "anna.wav", "--record", "me.wav"]) == 2
    assert (
        "me.wav/source.flac cannot be written (me.wav is a file): name a folder"
        in capsys.readouterr().err
    )
    os.mkdir("take")
    os.rename("anna.wav", "take/source.flac")
    assert main(["live", "--voice", "take/source.flac", "--record", "take"]) == 2
    assert "which is read): name another\n" in capsys.readouterr().err, "there is no --force for it"
    with pytest.raises(AssertionError, match="a model was loaded"):
        main(["live", "--voice", "take/source.flac"])
    assert "preparing the model" in capsys.readouterr().err and asked.count("input") >= 4


def test_a_server_takes_its_port_before_its_model(
    idle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        for more in ([], ["--ray", "--voices", "voices"]):
            assert main(["serve", "--port", str(port), *more]) == 2
            said = (
                f"127.0.0.1:{port} cannot be listened on (Address already in use): is a server"
                " running there already?"
            )
            assert said in capsys.readouterr().err


@pytest.mark.parametrize("place", ["cache", "cache/below/it"])
def test_a_cache_folder_that_is_a_file_is_named(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    Path("cache").touch()
    monkeypatch.setenv("RTVC_CACHE", place)
    for words in (
        "bench stream --streams 1 --engine auto",
        "teacher voices",
        "live --voice anna.wav",
    ):
        assert main(words.split()) == 2
        error = capsys.readouterr().err.replace("\n", " ")
        assert (
            f"the cache folder {place} cannot be used (cache is a file): set RTVC_CACHE to a folder"
            in error
        )


def test_json_on_standard_output_is_json(
    files: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results for /dev/stdout leave no picture or cache beside it, and words go to standard
    error."""
    from rtvc.benchmarks.live import stalls

    found = {"passed": True, "stalls": 0}
    monkeypatch.setattr(stalls, "stalls", lambda *arguments, **options: found)
    before = set(os.listdir("/dev"))
    for target in ("/dev/stdout", "-"):
        assert main(["bench", "stalls", "--json", target]) == 0
        printed = capfd.readouterr()
        assert json.loads(printed.out)["stalls"] == [found] and '"passed": true' in printed.err
    assert main(["bench", "stalls", "--json", "/dev/null"]) == 0
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode) and os.path.islink("/dev/stdout")
    assert set(os.listdir("/dev")) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_unwinds_a_command(tmp_path: Path, number: signal.Signals) -> None:
    """Twice, as process groups get it: what was put up is taken down once, in peace."""
    code = """
import os, signal, sys, time, typer
from contextlib import contextmanager
from pathlib import Path
import rtvc.cli, rtvc.cli.stats
from rtvc.files import replacing

def stats():
    try:
        with replacing(Path("whole")) as fresh:
            fresh.write_text("half")
            print("ready", flush=True)
            time.sleep(60)
    finally:
        time.sleep(0.5)
        Path("down").touch()

rtvc.cli.stats.stats = stats
sys.exit(rtvc.cli.main(["stats"]))
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, stdout=subprocess.PIPE
    ) as running:
        assert running.stdout is not None and running.stdout.readline() == b"ready\n"
        running.send_signal(number)
        running.send_signal(number)
        assert running.wait(120) == 128 + number
    assert os.listdir(tmp_path) == ["down"]


def test_handlers_are_put_back(files: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert main(["voice", "show", "gone.voice"]) == 2 and signal.getsignal(signal.SIGTERM) == before
