"""Live conversion with real audio devices: a headless PulseAudio server, speech said into its
microphone, heard at its speaker."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtvc.benchmarks.live.loopback import delay_of
from rtvc.benchmarks.live.pulse import recorded, room
from rtvc.clients.live.virtual_mic import SINK, SOURCE, TITLE, pactl, remove, virtual_mic

pytestmark = pytest.mark.skipif(
    shutil.which("pulseaudio") is None,
    reason="PulseAudio is not installed: apt-get install pulseaudio",
)
pytest.importorskip("sounddevice", exc_type=(ImportError, OSError))
ROOT = Path(__file__).parents[3]


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
            player.wait(10)
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
            player.wait(10)
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
        assert process.wait(30) == 143
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
