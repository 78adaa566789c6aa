"""The jitter buffer: order, patience, and what becomes of what never comes. No clock, no socket."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rtvc.engine.webrtc.jitter import (
    BLOCK,
    LONGEST_GAP,
    LONGEST_WAIT_S,
    MARGIN_S,
    RATE,
    JitterBuffer,
)


def feed(buffer, arrivals, first=65_530, ticks=2**32 - 4_000):
    """Puts packets (number, arrival) in the order of their arrival and takes all that is due at
    each; returns (time, packet)."""
    taken = []
    for number, when in sorted(arrivals, key=lambda one: one[1]):
        while (due := buffer.due()) is not None and due <= when:
            packet = buffer.take(max(due, 0.0))
            if packet is None:
                break
            taken.append((due, packet))
        sequence, timestamp = (first + number) % 65_536, (ticks + number * BLOCK) % 2**32
        buffer.put(sequence, timestamp, b"%d" % number, when)
        while (packet := buffer.take(when)) is not None:
            taken.append((when, packet))
    while (packet := buffer.take(1e9)) is not None:
        taken.append((1e9, packet))
    return taken


def payloads(taken):
    return [None if packet.payload is None else int(packet.payload) for _, packet in taken]


def test_what_arrives_in_order_is_handed_on_at_once():
    taken = feed(JitterBuffer(), [(n, n * 0.02) for n in range(20)])
    assert payloads(taken) == list(range(20))
    assert all(abs(when - n * 0.02) < 1e-9 for n, (when, _) in enumerate(taken))


def test_numbers_and_timestamps_count_around():
    stamps = [
        packet.timestamp for _, packet in feed(JitterBuffer(), [(n, n * 0.02) for n in range(20)])
    ]
    assert list(np.diff(stamps)) == [BLOCK] * 19


def test_a_packet_that_was_overtaken_is_waited_for():
    rng = np.random.default_rng(0)
    arrivals = [(n, n * 0.02 + 0.06 * rng.random()) for n in range(300)]
    buffer = JitterBuffer()
    taken = feed(buffer, arrivals)
    assert sorted(p for p in payloads(taken) if p is not None) == [
        p for p in payloads(taken) if p is not None
    ]
    assert buffer.lost <= 6 and buffer.received >= 294  # those before it knows the network
    assert 0.04 < buffer.unrest < 0.06


def test_one_that_never_comes_is_told_with_what_followed_it():
    arrivals = [(n, n * 0.02) for n in range(10) if n != 4]
    taken = feed(JitterBuffer(), arrivals)
    assert payloads(taken) == [0, 1, 2, 3, None, 5, 6, 7, 8, 9]
    lost = taken[4][1]
    assert lost.following == b"5" and lost.timestamp == taken[3][1].timestamp + BLOCK
    assert not any(packet.anew for _, packet in taken[1:])


def test_two_in_a_row_have_one_copy():
    taken = feed(JitterBuffer(), [(n, n * 0.02) for n in range(10) if n not in (4, 5)])
    assert [packet.following for _, packet in taken[4:6]] == [None, b"6"]


def test_a_long_gap_begins_anew():
    gap = range(5, 5 + LONGEST_GAP + 1)
    taken = feed(JitterBuffer(), [(n, n * 0.02) for n in range(80) if n not in gap])
    assert [p for p in payloads(taken) if p is None] == []
    assert [int(packet.payload) for _, packet in taken if packet.anew] == [0, gap.stop]


def test_a_loudspeaker_hears_everything_evenly():
    rng = np.random.default_rng(1)
    arrivals = [(n, n * 0.02 + 0.06 * rng.random()) for n in range(1_000)]
    taken = feed(JitterBuffer(paced=True), arrivals)[500:]
    waits = [when - int(p.payload) * 0.02 for when, p in taken if p.payload and when < 1e8]
    assert max(waits) - min(waits) < 0.015  # of 60 ms of unrest
    assert max(waits) < 0.06 + MARGIN_S + 0.02


def test_a_network_that_changes_is_followed():
    buffer, rng = JitterBuffer(), np.random.default_rng(2)
    feed(buffer, [(n, n * 0.02 + 0.02 * rng.random()) for n in range(500)])
    calm = buffer.unrest
    later = [(n, n * 0.02 + 0.08 * rng.random()) for n in range(500, 1_000)]
    feed(buffer, later)
    wild = buffer.unrest
    feed(buffer, [(n, n * 0.02 + 0.02 * rng.random()) for n in range(1_000, 1_500)])
    assert calm < 0.021 < 0.07 < wild < 0.081 and buffer.unrest < 0.021


def test_it_waits_no_longer_than_it_should():
    buffer = JitterBuffer()
    for n in range(100):
        buffer.put(n, n * BLOCK, b"x", n * 0.02 + (5.0 if n % 3 == 0 else 0.0))
    assert buffer.unrest == LONGEST_WAIT_S


def test_a_stream_that_jumps_begins_anew():
    buffer = JitterBuffer()
    buffer.put(10, 0, b"a", 0.0)
    assert buffer.take(0.0).payload == b"a"
    buffer.put(30_000, 7 * RATE, b"b", 1.0)
    packet = buffer.take(1.0)
    assert packet.payload == b"b" and packet.anew


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 65_535), st.integers(0, 2**32 - 1), st.floats(0, 1e3, allow_nan=False)
        ),
        max_size=300,
    ),
    st.booleans(),
)
def test_whatever_arrives_it_stays_small_and_ends(packets, paced):
    buffer, taken = JitterBuffer(paced=paced, most=20), 0
    for sequence, timestamp, when in packets:
        buffer.put(sequence, timestamp, b"", when)
        assert len(buffer._waiting) <= 20
    while buffer.take(1e9) is not None:
        taken += 1
        assert taken <= 20 * (LONGEST_GAP + 1)
    assert buffer.due() is None
