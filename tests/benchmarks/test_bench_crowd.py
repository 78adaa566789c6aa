"""A crowd of sessions on one server, small enough for every run: the same command holds two hundred
of them."""

import json

import pytest

crowd = pytest.importorskip("rtvc.benchmarks.crowd")


def test_every_sample_of_a_crowd_comes_back_and_the_lag_is_stated(tmp_path):
    found = crowd.crowd(24, 2.0, limit=120.0)
    assert (found["held"], found["refused"], found["sessions"]) == (24, 0, 24), found
    assert (
        found["server"]["rtvc_internal_errors_total"]
        == found["server"]["rtvc_dropped_seconds_total"]
        == 0
    )
    assert (
        37.5 < found["lag_p50_ms"] <= found["lag_p99_ms"] <= found["lag_max_ms"]
    )  # the delay of the model itself
    assert found["lasted_s"] >= 2.0 and found["server"]["cpu_s"] > 0


def test_what_is_held_is_what_came_back_exactly(tmp_path, monkeypatch):
    result = {"complete": True, "exact": False, "xruns": 0, "server_p99_ms": 0}
    monkeypatch.setattr(
        crowd, "crowd", lambda *_, **__: {"held": 0, "sessions": 1, "found": result}
    )
    with pytest.raises(crowd.typer.Exit) as stop:
        crowd.bench(sessions=1, output=tmp_path / "result.json")
    assert (
        stop.value.exit_code == 1
        and json.loads((tmp_path / "result.json").read_text())["held"] == 0
    )


def test_a_crowd_that_is_not_over_in_time_is_given_up():
    with pytest.raises(TimeoutError, match=r"2 sessions of 60 s were not over within 0\.1 s"):
        crowd.crowd(2, 60.0, limit=0.1)
