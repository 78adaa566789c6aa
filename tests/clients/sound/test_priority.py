"""Real time for who leaves others room, and only while it does."""

import os
import sys
import threading

import pytest

from rtvc.clients.sound import priority
from rtvc.clients.sound.priority import (
    ALONE_GREEDY,
    ALONE_MODEST,
    GENTLE,
    GREEDY,
    JUDGED_S,
    MODEST,
    Urgency,
    ordinary,
    realtime,
    stand_back,
)


@pytest.fixture
def asked(monkeypatch):
    """What the system was asked for, in order; it has two processors."""
    calls = []
    monkeypatch.setattr(priority, "processors", lambda: 2)
    monkeypatch.setattr(priority, "realtime", lambda level: calls.append(level) or True)
    monkeypatch.setattr(priority, "ordinary", lambda: calls.append("ordinary"))
    return calls


def turns(urgency, share, seconds, step=0.0125):
    for _ in range(round(seconds / step)):
        urgency.turn(share * step, step)


def test_nobody_has_real_time_before_its_share_is_known(asked):
    urgency = Urgency(2)
    turns(urgency, 0.2, JUDGED_S - 0.1)
    assert not asked and not urgency.granted
    turns(urgency, 0.2, 0.2)
    assert asked == [2] and urgency.granted


def test_who_needs_a_whole_processor_never_has_it(asked):
    turns(Urgency(2), 1.7, 20)
    assert not asked


def test_who_becomes_slower_gives_it_back_within_two_windows_and_may_have_it_again(asked):
    urgency = Urgency(2)
    turns(urgency, 0.3, 3)
    turns(urgency, 2.0, 2 * JUDGED_S)
    assert asked == [2, "ordinary"] and not urgency.granted
    turns(urgency, 0.3, 3 * JUDGED_S)
    assert asked == [2, "ordinary", 2]


def test_it_does_not_waver_between_the_two_shares(asked):
    urgency = Urgency(2)
    turns(urgency, 0.9 * MODEST, 2)
    for share in (0.5 * (MODEST + GREEDY), 0.99 * GREEDY, 1.01 * MODEST) * 20:
        turns(urgency, share, 0.5)
    assert asked == [2]


def test_on_a_single_processor_more_is_left_to_the_sound_server(asked, monkeypatch):
    share = 0.5 * (ALONE_MODEST + MODEST)
    turns(Urgency(2), share, 2)
    assert asked == [2]
    monkeypatch.setattr(priority, "processors", lambda: 1)
    turns(Urgency(2), share, 2)
    assert asked == [2]
    urgency = Urgency(2)
    turns(urgency, 0.9 * ALONE_MODEST, 2)
    turns(urgency, 0.5 * (ALONE_GREEDY + GREEDY), 2 * JUDGED_S)
    assert asked == [2, 2, "ordinary"]


def test_what_is_not_permitted_is_asked_for_again_and_costs_nothing(monkeypatch):
    monkeypatch.setattr(priority, "realtime", lambda level: False)
    monkeypatch.setattr(priority, "ordinary", lambda: pytest.fail("it never had real time"))
    urgency = Urgency(2)
    turns(urgency, 0.1, 3)
    turns(urgency, 3.0, 3)
    assert not urgency.granted


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="no scheduler to ask here")
def test_the_system_is_asked_for_this_thread_alone():
    policies = []

    def work():
        if realtime(1):
            policies.append(os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK)
            ordinary()
        policies.append(os.sched_getscheduler(0))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert policies in ([os.SCHED_RR, os.SCHED_OTHER], [os.SCHED_OTHER])
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own here")
def test_who_stands_back_stands_back_alone():
    def nice():
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before, within = nice(), []

    def work():
        stand_back()
        within.append(nice())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    stand_back()  # the main thread could never come back
    assert within == [max(before, GENTLE)] and nice() == before
