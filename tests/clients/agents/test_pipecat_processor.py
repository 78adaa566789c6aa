"""The processor for pipecat in pipelines of the real package. That asks for older soundfile, soxr
and protobuf than the rest of the tests: it gets an environment of its own, on top of this one.
"""

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from agents import documented

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def pipecat(tmp_path_factory):
    """A Python that sees pipecat and what it asks for, and behind them what is installed here."""
    folder = tmp_path_factory.mktemp("pipecat") / "venv"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = next(
        one for one in extras["optional-dependencies"]["pipecat"] if one.startswith("pipecat")
    )
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    inside = next(folder.glob("lib/python*/site-packages"))
    (inside / "outer.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", wanted]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=600)
    if done.returncode:
        pytest.skip(f"pipecat cannot be installed: {done.stderr.strip().splitlines()[-1:]}")
    return python


def run(python, *command):
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")]),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [str(python), *map(str, command)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    return done.stdout


@pytest.fixture(scope="module")
def told(pipecat):
    """What came out of each pipeline."""
    return json.loads(run(pipecat, ROOT / "tests/support/pipecat_agent.py").splitlines()[-1])


@pytest.mark.slow
def test_a_sentence_comes_out_whole_before_its_end(told):
    begin, audio, end, text = told["sentence"]
    assert (begin, end, text) == (["TTSStartedFrame"], ["TTSStoppedFrame"], ["TextFrame"])
    assert audio[:5] == ["TTSAudioRawFrame", 16_000, 1, "c", 16_000]
    assert 3_800 < audio[5] < 4_200  # half of 8000


@pytest.mark.slow
def test_sentences_follow_each_other_at_any_rate(told):
    assert [one[4] for one in told["two"] if len(one) > 1] == [8_000, 6_400]
    kind, rate, channels, _, count, level = told["stereo"][0]
    assert (kind, rate, channels, count) == ("TTSAudioRawFrame", 48_000, 2, 48_000)
    assert 3_800 < level < 4_200


@pytest.mark.slow
def test_what_has_no_end_ends_with_the_pipeline(told):
    assert told["unended"][0][4] == 8_000 and told["left"] == 0


@pytest.mark.slow
def test_only_the_frames_that_were_asked_for_are_converted(told):
    assert told["input untouched"] == [["InputAudioRawFrame", 16_000, 1, None, 3_200, 8_000]]
    (kind, rate, _, _, count, level) = told["input"][0]
    assert (kind, rate) == ("InputAudioRawFrame", 16_000)
    assert 0 < count <= 8_000 and 3_800 < level < 4_200


@pytest.mark.slow
def test_an_interruption_ends_what_was_being_said(told):
    after = [one for one in told["interrupted"] if len(one) > 1 and one[3] == "d"]
    assert [one[4] for one in after] == [4_000]


@pytest.mark.slow
def test_the_example_says_a_recording(pipecat, tmp_path):
    command = documented("pipecat_voice", tmp_path / "said.wav")
    assert "32000 of 32000 samples" in run(pipecat, *command)
    speech, rate = soundfile.read(tmp_path / "said.wav")
    assert rate == 16_000 and np.abs(speech).max() > 0.05
