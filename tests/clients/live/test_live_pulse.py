"""Live conversion with real audio devices: a headless PulseAudio server, speech said into its
microphone, heard at its speaker."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtvc.benchmarks.live.loopback import delay_of
from rtvc.benchmarks.live.pulse import MODULES, recorded, room
from rtvc.benchmarks.live.soak import replug
from rtvc.clients.live.devices import Device, own_rate, server_devices
from rtvc.clients.live.virtual_mic import SINK, SOURCE, TITLE, pactl, remove, virtual_mic
from rtvc.clients.sound.server_stream import ServerStream
from rtvc.errors import DeviceError

pytestmark = pytest.mark.skipif(
    shutil.which("pulseaudio") is None,
    reason="PulseAudio is not installed: apt-get install pulseaudio",
)
pytest.importorskip("sounddevice", exc_type=(ImportError, OSError))
ROOT = Path(__file__).parents[3]
PULSE = Device(0, "pulse", "ALSA", 32, 32, 44_100, 0.009, 0.009, "both")
"""PortAudio's way to a sound server."""


@pytest.fixture(scope="module")
def server():
    with room() as found:
        yield found


@pytest.fixture
def inside(server, monkeypatch):
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server


def speech(seconds=3.0):
    """Real speech at 48 kHz from the examples, or the corpus; shaped noise bursts when there is
    neither."""
    for folder, pattern in (
        (ROOT / "examples", "*.*"),
        (ROOT.parent / "shared" / "corpus" / "eval" / "libri_1089", "*.flac"),
    ):
        for path in sorted(folder.glob(pattern)):
            if path.suffix in (".wav", ".flac"):
                from rtvc.audio.resample import resample

                samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
                return resample(samples[: int(seconds * rate), 0].copy(), rate, 48_000)
    pytest.skip("no recording of speech at hand: neither examples nor ../shared/corpus")
    return np.zeros(0, np.float32)


LIVE = """
import sys, json, time
sys.path.insert(0, {tests!r})
from converters import DelayConverter, TestVoice
from rtvc.clients.live.config import LiveConfig
from rtvc.clients.live.live import Live
from rtvc.engine.backends.eager import TorchBackend
config = LiveConfig(gate={gate}, sound={sound!r}, block_ms=10, margin_ms=60)
with Live(TorchBackend(DelayConverter(), 300), TestVoice(gain=1.0), config) as live:
    print("ready", flush=True)
    ends = time.monotonic() + {seconds}
    while time.monotonic() < ends:
        time.sleep(0.1)
        live.supervise()
    print(json.dumps(live.status().as_dict()), flush=True)
"""


def run_live(server, tmp_path, *, sound="sounddevice", gate=False, seconds=4.5):
    """Runs a live conversion (a pure delay) in a process of its own while speech is said; returns
    its status and the recording."""
    path, said = tmp_path / "room.f32", speech()
    code = LIVE.format(
        tests=str(ROOT / "tests" / "support"), gate=gate, sound=sound, seconds=seconds
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, **server.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline().strip() == "ready", process.stderr.read()
        with server.recording(path):
            time.sleep(0.5)
            player = server.say(said * 0.5)
            out, _ = process.communicate(timeout=60)
            player.terminate()
            player.wait(120)
    finally:
        process.kill()
    return json.loads(out.strip().splitlines()[-1]), recorded(path)


@pytest.mark.parametrize("sound", ["sounddevice", "pyaudio"])
def test_speech_said_into_the_microphone_is_heard_at_the_speaker(inside, tmp_path, sound):
    pytest.importorskip(sound)
    status, (said, heard) = run_live(inside, tmp_path, sound=sound)
    assert status["state"] == "running" and status["steps"] > 50 and status["losses"] == 0
    assert np.abs(said).max() > 0.05 and np.abs(heard).max() > 0.05
    delays = delay_of(said, heard, inside.rate)
    assert len(delays), status
    assert 0.04 < np.median(delays) < 0.7  # the converter alone takes 37.5 ms
    assert (
        abs(1000 * np.median(delays) - status["lag_p50_ms"]) < 150
    )  # our own meter agrees but for what the server buffers


def test_the_virtual_microphone_appears_carries_sound_and_leaves(inside):
    with virtual_mic(monitor=True) as name:
        assert name == TITLE and os.environ["PULSE_SINK"] == SINK
        assert SOURCE in pactl("list", "short", "sources")
        assert "module-loopback" in pactl("list", "short", "modules")
        tone = (0.3 * np.sin(np.arange(48_000 * 3) / 20)).astype(np.float32)
        player = inside.say(tone, device=SINK)
        try:
            recorder = [
                "timeout",
                "2.5",
                "parec",
                f"--device={SOURCE}",
                "--format=float32le",
                "--rate=48000",
                "--channels=1",
                "--latency-msec=20",
            ]
            heard = np.frombuffer(
                subprocess.run(recorder, capture_output=True, check=False).stdout[: 48_000 * 8],
                np.float32,
            )
        finally:
            player.terminate()
            player.wait(120)
        assert np.abs(heard).max() == pytest.approx(0.3, abs=0.06)
    assert SOURCE not in pactl("list", "short", "sources") and os.environ["PULSE_SINK"] == "speaker"


def test_a_microphone_that_a_crash_left_behind_is_removed(inside):
    pactl("load-module", "module-null-sink", f"sink_name={SINK}")
    pactl("load-module", "module-remap-source", f"master={SINK}.monitor", f"source_name={SOURCE}")
    with virtual_mic():
        sources = [row for row in pactl("list", "short", "sources").splitlines() if SOURCE in row]
        assert len(sources) == 1
    assert remove() == 0


def test_a_terminated_process_takes_its_microphone_along(inside):
    """SIGTERM, as `kill` and service managers send it."""
    code = """
import rtvc.cli, rtvc.cli.stats, time
from rtvc.clients.live.virtual_mic import virtual_mic

def stats():
    with virtual_mic():
        print("ready", flush=True)
        time.sleep(60)

rtvc.cli.stats.stats = stats
raise SystemExit(rtvc.cli.main(["stats"]))
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        assert SOURCE in pactl("list", "short", "sources")
        process.terminate()
        assert process.wait(120) == 143
    assert SOURCE not in pactl("list", "short", "sources") and SINK not in pactl(
        "list", "short", "sinks"
    )


def test_devices_of_the_server_are_listed(inside):
    code, environment = "from rtvc.cli import main; main()", {**os.environ, **inside.environment}
    listed = subprocess.run(
        [sys.executable, "-c", code, "devices", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "pulse" in [row["name"] for row in json.loads(listed.stdout)]


def test_a_stream_of_the_server_itself_has_the_buffers_that_were_asked_for(inside):
    """Blocks of 5 ms come as blocks of 5 ms, and what is played waits 7.5 ms at the server."""
    heard, block = list[int](), 240
    settings = {"rate": 48_000, "block": block}
    microphone = ServerStream(PULSE, lambda x, at: heard.append(len(x)), incoming=True, **settings)
    speaker = ServerStream(PULSE, lambda out, at: out.fill(0), incoming=False, **settings)
    try:
        deadline = time.monotonic() + 30
        while len(heard) < 100 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(heard) >= 100 and set(heard) == {block}
        assert microphone.alive and speaker.alive and speaker.held < 0.030
        listed = pactl("list", "sink-inputs")
        assert 'application.name = "rtvc"' in listed
    finally:
        microphone.stop()
        speaker.stop()
    assert not microphone.alive and not speaker.alive


def test_a_device_that_the_server_does_not_have_is_refused(inside):
    nowhere = replace(PULSE, server="nowhere")
    with pytest.raises(DeviceError, match="nowhere"):
        ServerStream(nowhere, lambda x, at: None, rate=48_000, block=240, incoming=True)


def test_the_rate_is_the_servers_own_not_the_one_that_portaudio_says(inside):
    speaker = next(found for found in server_devices([PULSE]) if found.server == "speaker")
    assert PULSE.rate == 44_100 and speaker.rate == 48_000
    assert own_rate(PULSE, "input") == own_rate(PULSE, "output") == inside.rate == 48_000


def test_a_device_that_is_unplugged_is_taken_back_when_it_returns(inside, tmp_path):
    """The server takes the microphone away, and the conversion has it again when it is back."""
    code = LIVE.format(
        tests=str(ROOT / "tests" / "support"), gate=False, sound="auto", seconds=600
    ).replace("live.supervise()", "live.supervise(); print(live.pump.captured.written, flush=True)")
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, **inside.environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline().strip() == "ready"
        replug(inside, "voice", MODULES[3].format(rate=inside.rate), 1.0)
        before = int(process.stdout.readline())
        for _ in range(600):
            if int(process.stdout.readline()) > before + 96_000:  # two seconds of the microphone
                break
        else:
            raise AssertionError("nothing came from the microphone any more")
    finally:
        process.kill()
        process.wait(120)
