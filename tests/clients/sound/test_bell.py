"""The bell between an audio callback and the thread that converts."""

import os
import threading

import pytest

from rtvc.clients.sound.bell import Bell

counted = pytest.mark.skipif(not hasattr(os, "eventfd"), reason="this system has no event counters")


@counted
def test_it_wakes_who_waits_and_keeps_who_comes_later_from_waiting() -> None:
    bell, heard = Bell(), list[bool]()
    waiting = threading.Thread(target=lambda: heard.append(bell.wait(600)))
    waiting.start()
    bell.ring()
    waiting.join(60)
    assert heard == [True]
    for _ in range(10_000):
        bell.ring()  # nobody hears it, and it does not block
    assert bell.wait(600)
    assert not bell.wait(0.001)  # all that was rung is heard at once
    bell.close()


def test_a_closed_bell_is_silent() -> None:
    bell = Bell()
    bell.close()
    bell.ring()
    assert not bell.wait(0.001)
    bell.close()


def test_without_event_counters_the_worker_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "eventfd", raising=False)
    bell = Bell()
    bell.ring()
    assert not bell.wait(0.001)
