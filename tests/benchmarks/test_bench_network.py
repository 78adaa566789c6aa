"""The websocket and a call over a line that loses 2 % of all packets and delays the others by up to
30 ms more or less: of the call nothing waits for what was lost, and all of it is made up for."""

import os
import subprocess

import pytest

pytest.importorskip("aiortc")

from rtvc.benchmarks.network.link import ADDRESSES, Line, bad_line
from rtvc.benchmarks.network.peers import shift, speech
from rtvc.benchmarks.network.run import compare, figures, median
from rtvc.engine.protocol.formats import opus_library
from rtvc.errors import DependencyError

BAD = Line(loss=0.02, delay_ms=40.0, jitter_ms=30.0)


def lines(kind):
    """Skips where no such line can be had."""
    if os.name != "posix" or not hasattr(os, "geteuid"):
        pytest.skip("network namespaces are Linux's")
    try:
        with bad_line(BAD, kind) as (_, made_of):
            return made_of
    except DependencyError as error:
        pytest.skip(f"no line of {kind}: {error}")


@pytest.mark.parametrize("kind", ["netem", "tun"])
def test_a_bad_line_loses_about_what_it_should(kind):
    lines(kind)
    with bad_line(Line(loss=0.3, delay_ms=10.0, jitter_ms=5.0), kind) as (names, _):
        ping = ["ping", "-q", "-c", "100", "-i", "0.01", "-W", "1", ADDRESSES[1]]
        command = ["ip", "netns", "exec", names[0], *ping]
        if subprocess.run(["which", "ping"], capture_output=True).returncode:
            pytest.skip("ping is not installed")
        said = subprocess.run(command, capture_output=True, text=True).stdout
    lost = float(said.split("% packet loss")[0].split()[-1])
    assert 25 < lost < 75  # 51 % of the ways there and back


@pytest.mark.slow
def test_a_call_over_a_bad_line_misses_nothing():
    if opus_library() is None:
        pytest.skip("opuslib or libopus is not installed")
    made_of = lines("auto")
    told = compare(BAD, 6.0)
    assert told["line"] == made_of
    websocket, call = told["websocket"], told["webrtc"]
    assert websocket["missing_ms"] == 0
    # Packets before the first that came are all that can be missing.
    assert 0 <= call["missing_ms"] <= 60
    assert call["lost_up"] + call["lost_down"] > 0
    assert call["copied"] > call["guessed"]


def test_what_came_back_later_is_found():
    said = speech(2.0)
    assert shift(said, said) == 0
    assert shift(said, said[1_920:]) == 1_920


def test_figures_count_what_they_say():
    call = {"lags": [0.1] * 100, "said": 96_000, "samples": 95_040}
    call["down"] = {"lost": 3, "recovered": 2, "concealed": 1}
    websocket = {"lags": [0.05] * 90 + [0.4] * 10, "said": 96_000, "samples": 96_000}
    told = figures(websocket, call, {"received": 96.0, "recovered": 4.0, "concealed": 0.0})
    assert told["webrtc"]["missing_ms"] == 20 and told["websocket"]["missing_ms"] == 0
    assert told["webrtc"]["lost_up"] == 0.04 and told["webrtc"]["lost_down"] == 0.03
    assert told["webrtc"]["copied"] == 0.06 and told["webrtc"]["guessed"] == 0.01
    assert told["websocket"]["later_than_a_call"] == 0.1


def test_a_busy_round_tells_nothing():
    rounds = [{"websocket": {"a": one}, "webrtc": {"b": -one}} for one in (1.0, 50.0, 2.0)]
    assert median(rounds) == {"websocket": {"a": 2.0}, "webrtc": {"b": -2.0}}
