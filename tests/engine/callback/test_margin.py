"""The queue at the player is as long as the jitter needs, and no longer."""

import numpy as np
import pytest

from rtvc.engine.callback.margin import LEAST_S, MOST_S, STEP_S, STRAINED_S, WARMING, Margin
from rtvc.engine.callback.playout import Playout
from rtvc.engine.callback.ring import Ring

RATE = 48_000


def told(margin, lows, seconds=0.08):
    for low in lows:
        margin.window(low, seconds)
    return margin.value


def test_an_even_level_needs_the_least():
    assert told(Margin(), [0.003] * 100) == pytest.approx(LEAST_S)


def test_a_dip_is_kept_in_reserve_until_it_is_long_past():
    margin = Margin()
    assert told(margin, [0.004] * 50 + [0.002]) == pytest.approx(LEAST_S + 0.002)
    assert told(margin, [0.004] * 30) == pytest.approx(LEAST_S + 0.002)
    assert told(margin, [0.004] * 64) == pytest.approx(LEAST_S)


def test_a_level_that_is_steered_is_no_jitter():
    assert told(Margin(), np.linspace(0.010, 0.002, 400)) < LEAST_S + 0.0001


def test_calm_never_asks_for_more_than_the_most():
    assert told(Margin(), [0.030] * 20 + [0.0]) == pytest.approx(MOST_S)


def test_running_dry_adds_and_calm_takes_it_back():
    margin = Margin()
    told(margin, [0.003] * WARMING)
    margin.dry()
    assert margin.value == pytest.approx(MOST_S + STEP_S)
    for _ in range(100):
        margin.dry()
    assert margin.value == pytest.approx(MOST_S + STRAINED_S)
    assert told(margin, [0.003] * 3000) == pytest.approx(LEAST_S)


def test_what_comes_too_late_while_all_begins_says_nothing():
    margin = Margin()
    margin.dry()
    assert margin.value == pytest.approx(MOST_S)


def playing(playout, blocks, block=120, chunk=600, ahead=0):
    """Chunks written when they are due, blocks read one after the other; what was played, (N,)."""
    heard, written = [], 0
    out = np.zeros(block, np.float32)
    playout.read(out, 0.0)  # from now on somebody listens
    for index in range(blocks):
        while written < index * block + chunk + ahead:
            tone = np.sin(np.arange(written, written + chunk) / 20).astype(np.float32)
            playout.write(tone, written / RATE)
            written += chunk
        playout.read(out, index * block / RATE)
        heard.append(out.copy())
    return np.concatenate(heard)


def test_what_the_beginning_left_in_the_queue_is_taken_out_without_a_click():
    playout = Playout(RATE, margin=None)
    heard = playing(playout, 400, ahead=1800)
    assert playout.drops == 1 and playout.underruns == 0
    assert playout.level < 0.008  # of the 50 ms with which it began
    assert np.abs(np.diff(heard[1000:])).max() < 0.12  # a sine of 1/20 steps by 0.05 at most


def test_a_margin_that_is_given_stays():
    playout = Playout(RATE, margin=0.010)
    playing(playout, 200)
    assert playout.margin == 480 and playout.adapted is None


def test_peeking_takes_nothing_also_around_the_end():
    ring, block = Ring(8), np.zeros(5, np.float32)
    ring.write(np.arange(6, dtype=np.float32))
    ring.skip(5)
    ring.write(np.arange(10, 15, dtype=np.float32))
    assert ring.peek(block) == 5 and block.tolist() == [5, 10, 11, 12, 13]
    assert len(ring) == 6 and ring.read(block) == 5 and block.tolist() == [5, 10, 11, 12, 13]
    assert ring.peek(block) == 1 and block[0] == 14
