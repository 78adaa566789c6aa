"""Recordings: both files line up to the sample, whatever is dropped; a crash leaves whole files; a
full disk ends the recording and nothing else."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from calling import noise
from converters import DelayConverter, TestVoice

from rtvc.clients.recording.recorder import WAITING, Recorder, Take
from rtvc.engine.backends.eager import TorchBackend
from rtvc.engine.callback.placing import Placing, Stretch
from rtvc.engine.streams.backlog import Backlog
from rtvc.engine.streams.session import Session
from rtvc.errors import OutputError

ROOT = Path(__file__).parents[3]


def files(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The only take of a folder: source and conversion."""
    found = sorted(folder.iterdir())
    assert [path.name[16:] for path in found] == ["conversion.flac", "source.flac"]
    conversion, source = (soundfile.read(path, dtype="float32")[0] for path in found)
    return source, conversion


def test_source_and_conversion_line_up_to_the_sample(tmp_path: Path) -> None:
    """The stand-in delays by 37.5 ms and changes nothing: with its latency taken off, the
    conversion is the source. The recording starts in the middle of the stream."""
    session = Session(TorchBackend(DelayConverter(), 300), TestVoice(gain=1.0))
    recorder, placing, x = Recorder(tmp_path, 24_000, 24_000), Placing(), noise(48_000)
    for start in range(0, len(x), 240):
        if start == 12_000:
            recorder.start()
        block = x[start : start + 240]
        y = session.push(block)
        recorder(placing.input(session.chunker, block), placing.output(session.chunker, y))
    recorder.stop()
    source, conversion = files(tmp_path)
    assert len(source) == len(conversion) == 36_000
    assert np.abs(source - x[12_000:]).max() <= 1 / 32_768
    late = 36_000 - session.chunker.latency - 300  # what had not left yet is silent
    assert np.abs(conversion[:late] - x[12_000:][:late]).max() <= 1 / 32_768
    assert not conversion[-session.chunker.latency :].any()


@pytest.mark.parametrize("rate_out", [24_000, 48_000])
def test_what_was_dropped_is_silent_and_all_else_stays_in_its_place(
    tmp_path: Path, rate_out: int
) -> None:
    session = Session(
        TorchBackend(DelayConverter(), 300),
        TestVoice(gain=1.0),
        sample_rate=24_000,
        output_rate=rate_out,
        backlog=Backlog(24_000, nominal=0.0225, limit=0.0825),
    )
    recorder, placing = Recorder(tmp_path, 24_000, rate_out), Placing()
    # Low tones: the resampler to 48 kHz leaves them as they are.
    at = np.arange(96_000) / 24_000
    x = (0.2 * np.sin(2 * np.pi * 300 * at) * np.sin(2 * np.pi * 3.7 * at)).astype(np.float32)
    recorder.start()
    for start in range(0, len(x), 240):
        now = (start + 240) / 24_000
        for back in (24_000, 60_000):  # the worker was away for 0.4 s before, twice
            if back - 9_600 <= start < back:
                now = back / 24_000
        block = x[start : start + 240]
        y = session.push(block, captured=start / 24_000, now=now)
        recorder(placing.input(session.chunker, block), placing.output(session.chunker, y))
    recorder.stop()
    dropped = session.chunker.backlog.dropped
    assert len(session.chunker.backlog.drops) >= 2 and dropped > 9_600
    source, conversion = files(tmp_path)
    share = rate_out // 24_000
    assert len(source) == 96_000 and len(conversion) == 96_000 * share
    kept = np.ones(96_000, bool)
    for drop in session.chunker.backlog.drops:
        kept[drop.position : drop.position + drop.samples + 240] = False  # and the cross-fade
    kept[-2_000:] = False
    assert np.abs(conversion[::share] - source)[kept].max() < 2e-3
    gaps = [slice(d.position, d.position + d.samples) for d in session.chunker.backlog.drops]
    assert all(not conversion[::share][gap][4:-4].any() for gap in gaps)


def test_a_stretch_that_is_missing_is_silent_and_one_that_came_twice_counts_once(
    tmp_path: Path,
) -> None:
    take, ones = Take(tmp_path, 1_000, 1_000), np.full(10, 0.5, np.float32)
    for at in (100, 120, 125):
        take.put(Stretch(at, ones), [Stretch(at - 4, ones)])
    take.stop()
    source, conversion = files(tmp_path)
    assert source.tolist() == [0.5] * 10 + [0.0] * 10 + [0.5] * 15
    assert conversion.tolist() == [0.5] * 6 + [0.0] * 10 + [0.5] * 15 + [0.0] * 4


def test_takes_follow_each_other_and_bear_names_of_their_own(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "new" / "folder", 8_000, 8_000)
    for _ in range(2):
        recorder.start()
        recorder.start()  # as often as somebody presses the button
        assert recorder.status()["on"]
        recorder(Stretch(0, noise(800)), [Stretch(0, noise(800))])
        recorder.stop()
        recorder.stop()
    assert not recorder.status()["on"]
    found = list((tmp_path / "new" / "folder").iterdir())
    assert len(found) == 4 and all(soundfile.info(path).frames == 800 for path in found)


def test_a_folder_that_takes_no_files_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="name another folder"):
        Recorder(tmp_path / "file" / "takes", 8_000, 8_000).start()


def test_audio_never_waits_for_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes nothing for a while: putting returns at once, what found no room is
    counted, and its place is silent."""
    from rtvc.clients.recording import recorder as module

    slow = module.Track.place

    def stuck(self, stretch):
        time.sleep(0.3 if stretch.at == 0 else 0)
        slow(self, stretch)

    monkeypatch.setattr(module.Track, "place", stuck)
    take, block = Take(tmp_path, 8_000, 8_000), np.full(80, 0.5, np.float32)
    longest = 0.0
    for index in range(WAITING + 100):
        began = time.perf_counter()
        take.put(Stretch(80 * index, block), [Stretch(80 * index, block)])
        longest = max(longest, time.perf_counter() - began)
    assert longest < 0.1 and take.lost >= 80 * 90
    take.put(Stretch(80 * (WAITING + 100), block), [], wait=True)
    take.stop()
    source, _ = files(tmp_path)
    assert len(source) == 80 * (WAITING + 101)
    assert np.count_nonzero(source == 0) == take.lost


CRASH = """
import sys, time
import numpy as np
from pathlib import Path
from rtvc.clients.recording.recorder import Take
from rtvc.engine.callback.placing import Stretch
take, rate, at = Take(Path(sys.argv[1]), 48_000, 24_000), 48_000, 0
rng, began = np.random.default_rng(0), time.perf_counter()
x = (0.1 * rng.standard_normal(20 * rate)).astype(np.float32)
while True:
    take.put(Stretch(at, x[at:at + 480]), [Stretch(at // 2, x[at:at + 480:2])])
    at += 480
    print(at, flush=True)
    time.sleep(max(0.0, began + at / rate - time.perf_counter()))
"""


def test_a_killed_process_loses_less_than_a_second(tmp_path: Path) -> None:
    """`kill -9` in the middle: both files open, hold all but the last second at most, and what
    they hold is right."""
    with subprocess.Popen(
        [sys.executable, "-c", CRASH, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        said = 0
        for row in process.stdout:
            said = int(row)
            if said >= 3.3 * 48_000:
                os.kill(process.pid, signal.SIGKILL)
                break
        said = max([said, *(int(row) for row in process.stdout if row.strip())])
    source, conversion = files(tmp_path)
    x = (0.1 * np.random.default_rng(0).standard_normal(20 * 48_000)).astype(np.float32)
    assert said - len(source) < 48_000 and said // 2 - len(conversion) < 24_000
    assert np.abs(source - x[: len(source)]).max() <= 1 / 32_768
    assert np.abs(conversion - x[::2][: len(conversion)]).max() <= 1 / 32_768


FULL = """
import sys, time, json
import numpy as np
from pathlib import Path
from rtvc.clients.recording.recorder import Recorder
from rtvc.engine.callback.placing import Stretch
limit = int(sys.argv[2])
if limit:
    import resource, signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
recorder = Recorder(Path(sys.argv[1]), 48_000, 48_000)
recorder.start()
x = (0.1 * np.random.default_rng(0).standard_normal(10 * 48_000)).astype(np.float32)
for at in range(0, len(x), 480):
    recorder(Stretch(at, x[at:at + 480]), [Stretch(at, x[at:at + 480])], wait=True)
    time.sleep(0.004)
status = recorder.status()
recorder.stop()
print(json.dumps([status, recorder.status()]))
"""


def fill(folder: Path, limit: int) -> None:
    """Records ten seconds to a place that has not so much room, and looks at what is left."""
    import json

    done = subprocess.run(
        [sys.executable, "-c", FULL, str(folder), str(limit)],
        capture_output=True,
        text=True,
        check=True,
    )
    meanwhile, afterwards = json.loads(done.stdout)
    for status in (meanwhile, afterwards):
        assert not status["on"] and "recording stopped after" in status["problem"]
    source, conversion = files(folder)
    x = (0.1 * np.random.default_rng(0).standard_normal(10 * 48_000)).astype(np.float32)
    for found in (source, conversion):
        assert 24_000 < len(found) < len(x)
        assert np.abs(found - x[: len(found)]).max() <= 1 / 32_768


def test_a_full_disk_ends_the_recording_and_keeps_what_came_before(tmp_path: Path) -> None:
    """The system lets no file grow beyond 300 kB: about two seconds."""
    fill(tmp_path, 300_000)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may mount a small file system")
def test_a_small_file_system_that_is_full_is_survived(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no file system may be mounted here")
    try:
        fill(folder, 0)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
