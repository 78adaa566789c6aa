"""The ring: equal to a plain queue under any order of calls, and under two real threads."""

import sys
import threading
import time
from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtvc.engine.callback.ring import Ring
from rtvc.errors import EngineError

CALLS = st.lists(
    st.tuples(st.sampled_from(["write", "read", "skip"]), st.integers(0, 40)), max_size=60
)


@settings(max_examples=200, deadline=None)
@given(capacity=st.integers(1, 24), calls=CALLS)
def test_it_behaves_as_a_queue_with_a_limit(capacity, calls):
    ring, queue, counter = Ring(capacity), deque(), 0
    for name, count in calls:
        if name == "write":
            block = np.arange(counter, counter + count, dtype=np.float32)
            taken = ring.write(block)
            assert taken == min(count, capacity - len(queue))
            queue.extend(block[:taken])
            counter += taken
        elif name == "read":
            block = np.full(count, -1, np.float32)
            got = ring.read(block)
            assert got == min(count, len(queue))
            assert [queue.popleft() for _ in range(got)] == block[:got].tolist()
            assert (block[got:] == -1).all()
        else:
            assert ring.skip(count) == min(count, len(queue))
            for _ in range(min(count, len(queue))):
                queue.popleft()
        assert len(ring) == len(queue) == ring.written - ring.consumed


@pytest.mark.parametrize(("capacity", "total"), [(7, 4_000), (64, 40_000), (1_000, 400_000)])
def test_two_threads_pass_every_number_once_and_in_order(capacity, total):
    """A producer and a consumer with odd block sizes, switched as often as Python can."""
    ring, received = Ring(capacity, np.float64), []
    numbers = np.arange(total, dtype=np.float64)

    def produce():
        rng, at = np.random.default_rng(1), 0
        while at < total:
            written = ring.write(numbers[at : at + int(rng.integers(1, 300))])
            at += written
            if not written:
                time.sleep(0)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        thread = threading.Thread(target=produce)
        thread.start()
        rng, count = np.random.default_rng(2), 0
        while count < total:
            block = np.empty(int(rng.integers(1, 300)))
            got = ring.read(block)
            received.append(block[:got])
            count += got
            if not got:
                time.sleep(0)
        thread.join(120)
    finally:
        sys.setswitchinterval(interval)
    np.testing.assert_array_equal(np.concatenate(received), numbers)
    assert len(ring) == 0


def test_nothing_is_allocated_on_the_audio_path():
    """Thousands of writes and reads leave the traced memory as it was."""
    import tracemalloc

    ring, block = Ring(1_024), np.ones(256, np.float32)
    for _ in range(10):
        ring.write(block), ring.read(block)
    tracemalloc.start()
    try:
        before = tracemalloc.take_snapshot()
        for _ in range(5_000):
            ring.write(block), ring.read(block)
        grown = sum(
            max(0, line.size_diff)
            for line in tracemalloc.take_snapshot().compare_to(before, "filename")
            if "ring.py" in str(line)
        )
    finally:
        tracemalloc.stop()
    assert grown < 1_024


def test_an_empty_ring_is_refused():
    with pytest.raises(EngineError, match="at least one"):
        Ring(0)
