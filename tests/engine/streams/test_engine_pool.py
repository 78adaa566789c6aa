"""Pools: pooled sessions equal sessions stepped alone; joining, leaving, idling and overload keep
their promises."""

import numpy as np
import pytest
from calling import noise
from converters import DelayConverter, TestVoice, TinyConverter
from pooling import KeptPool, OneByOne

from rtvc.engine.backends.eager import TorchBackend
from rtvc.engine.streams.capacity import Capacity, StepTimes, measure
from rtvc.engine.streams.pool import PoolFullError
from rtvc.engine.streams.session import Session
from rtvc.errors import EngineError

EIGHT = Capacity(0.025, {}, 8)


def still():
    """A clock by which steps take no time, so that a tick always empties the queues."""
    return 0.0


class FixedBatches(TorchBackend):
    """A backend compiled for 1, 2 and 4 rows: any other batch is an error."""

    batches = (1, 2, 4)

    def step(self, x, voice, state):
        assert len(x) in self.batches and len(voice) == len(x) == len(state)
        return super().step(x, voice, state)


@pytest.mark.parametrize("kind", [TorchBackend, FixedBatches])
def test_desynchronised_members_equal_sessions_stepped_alone(kind):
    backend, rng = kind(TinyConverter(), 600), np.random.default_rng(1)
    pool = KeptPool(backend, capacity=EIGHT, clock=still)
    rates = [48_000, 24_000, 16_000, 44_100, 8_000]
    members = [pool.join(TestVoice(i), sample_rate=rate) for i, rate in enumerate(rates)]
    inputs = [noise(rate // 2 + i, i) for i, rate in enumerate(rates)]
    at, got = [0] * 5, [[] for _ in rates]
    while not all(member.done for member in members):
        for i, member in enumerate(members):
            if rng.random() < 0.6:
                size = int(rng.integers(1, 2000))
                member.push(inputs[i][at[i] : at[i] + size])
                at[i] += size
            if at[i] >= len(inputs[i]):
                member.finish()
        pool.tick()
        for i, member in enumerate(members):
            got[i].append(pool.pull(member))
    for i, rate in enumerate(rates):
        session = Session(backend, TestVoice(i), sample_rate=rate)
        wanted = np.concatenate([session.push(inputs[i]), session.flush()])
        np.testing.assert_allclose(np.concatenate(got[i]), wanted, rtol=0, atol=1e-6)


def test_admission_stops_at_the_measured_capacity_and_places_are_given_back():
    pool = KeptPool(
        TorchBackend(DelayConverter(), 600), slots=8, capacity=Capacity(0.025, {}, 2), clock=still
    )
    first = pool.join(TestVoice(gain=1.0))
    pool.join(TestVoice(gain=1.0))
    with pytest.raises(PoolFullError, match="measured to hold 2"):
        pool.join(TestVoice(gain=1.0))
    pool.leave(first)
    with pytest.raises(EngineError, match="has left"):
        first.push(np.zeros(10, np.float32))
    again = pool.join(TestVoice(gain=1.0))
    again.push(np.ones(2_400, np.float32))
    pool.tick()
    np.testing.assert_array_equal(pool.pull(again), np.ones(1_500, np.float32))


def test_a_reused_place_starts_from_silence():
    pool = KeptPool(TorchBackend(DelayConverter(), 600), slots=1, capacity=EIGHT, clock=still)
    old = pool.join(TestVoice(gain=1.0))
    old.push(np.ones(1_200, np.float32))
    pool.tick()
    pool.leave(old)
    new = pool.join(TestVoice(gain=1.0))
    new.push(np.zeros(1_800, np.float32))
    pool.tick()
    assert len(pool.pull(new)) == 900 and new.state.abs().max() == 0


def test_a_member_that_floods_waits_and_the_others_do_not():
    """With a clock that makes every step eat the whole tick, one chunk a member a tick is all there
    is."""
    time = [0.0]

    class Slow(TorchBackend):
        def step(self, x, voice, state):
            time[0] += 0.03
            return super().step(x, voice, state)

    pool = KeptPool(Slow(DelayConverter(), 600), capacity=EIGHT, clock=lambda: time[0])
    flood, calm = pool.join(TestVoice(gain=1.0)), pool.join(TestVoice(gain=1.0))
    flood.push(np.zeros(60_000, np.float32))
    for tick in range(5):
        calm.push(np.zeros(600, np.float32))
        pool.tick()
        assert (flood.steps, calm.steps) == (tick + 1, tick + 1)
    pool.tick()
    assert (flood.steps, calm.steps) == (6, 5)


def test_the_most_urgent_chunk_goes_first_when_a_batch_is_too_small():
    single = OneByOne(DelayConverter(), 600)
    pool = KeptPool(single, capacity=EIGHT, clock=lambda: 1.0)
    for value, captured, deadline in [(1.0, 0.9, 0.1), (2.0, 0.8, 0.1), (3.0, 0.95, 0.01)]:
        member = pool.join(TestVoice(gain=1.0), deadline=deadline)
        member.push(np.full(600, value, np.float32), captured=captured)
    pool.tick()
    assert single.order == [2.0, 3.0, 1.0]


def test_late_chunks_are_counted_and_stale_audio_is_dropped():
    time = [10.0]
    pool = KeptPool(TorchBackend(DelayConverter(), 600), capacity=EIGHT, clock=lambda: time[0])
    bounded = pool.join(TestVoice(gain=1.0), max_lag=0.1, deadline=0.05)
    endless = pool.join(TestVoice(gain=1.0), deadline=0.05)
    for member in (bounded, endless):
        member.push(np.ones(24_000, np.float32), captured=9.0)
    pool.tick()
    assert endless.steps == 40 and endless.late >= 36 and endless.chunker.backlog.dropped == 0
    assert (
        bounded.chunker.backlog.dropped == 24_000 - 600 and bounded.steps == 1 and bounded.late == 0
    )
    bounded.finish()
    pool.tick()
    assert bounded.done and len(pool.pull(bounded)) == 600


def test_a_swap_inside_a_pool_is_a_second_row_for_one_tick():
    rows = []

    class Counted(TorchBackend):
        def step(self, x, voice, state):
            rows.append(len(x))
            return super().step(x, voice, state)

    backend = Counted(DelayConverter(), 600)
    pool, session = (
        KeptPool(backend, capacity=EIGHT, clock=still),
        Session(TorchBackend(DelayConverter(), 600), TestVoice(gain=1.0)),
    )
    member, ones = pool.join(TestVoice(gain=1.0)), np.ones(1_200, np.float32)
    outputs = []
    for _ in range(3):
        member.push(ones)
        pool.tick()
        outputs.append((pool.pull(member), session.push(ones)))
        member.swap(TestVoice(gain=0.5))
        session.swap(TestVoice(gain=0.5))
    # Two chunks, thrice: the first one after a swap is stepped with both voices.
    assert rows == [1, 1, 2, 1, 2, 1]
    for got, wanted in outputs:
        np.testing.assert_array_equal(got, wanted)


def test_a_member_moves_between_pools():
    backend = TorchBackend(TinyConverter(), 600)
    x = noise(12_000)
    session = Session(backend, TestVoice(3), sample_rate=48_000)
    wanted = np.concatenate([session.push(x), session.flush()])
    here, there = (
        KeptPool(backend, capacity=EIGHT, clock=still),
        KeptPool(backend, capacity=EIGHT, clock=still),
    )
    there.join(TestVoice(5))
    member = here.join(TestVoice(3), sample_rate=48_000)
    member.push(x[:5_000])
    here.tick()
    with here.stepping:
        head, data = here.pull(member), member.parked()
    here.leave(member)
    moved = there.join(TestVoice(8), sample_rate=48_000)
    there.restore(moved, data)
    moved.push(x[5_000:])
    moved.finish()
    there.tick()
    np.testing.assert_allclose(np.concatenate([head, there.pull(moved)]), wanted, atol=1e-6)
    with pytest.raises(EngineError, match="expected a parked session"):
        there.restore(moved, b"junk")


def test_reset_inside_a_pool_starts_over():
    pool = KeptPool(TorchBackend(DelayConverter(), 600), capacity=EIGHT, clock=still)
    member = pool.join(TestVoice(gain=1.0))
    for _ in range(2):
        member.push(np.arange(1_000, dtype=np.float32) / 1_000)
        member.finish()
        pool.tick()
        np.testing.assert_array_equal(pool.pull(member), np.arange(1_000, dtype=np.float32) / 1_000)
        assert member.done
        member.reset()
        pool.tick()
        assert not member.done


def test_capacity_is_where_the_measured_p95_meets_the_tick(monkeypatch):
    import rtvc.engine.streams.capacity as capacity

    def timed(backend, rows, steps, clock):
        times = StepTimes()
        times.add(0.004 * rows)
        return times

    monkeypatch.setattr(capacity, "step_time", timed)
    backend = TorchBackend(DelayConverter(), 600)
    found = measure(backend)
    assert found.rows == 5 and set(found.p95) == {1, 2, 4, 8}
    assert measure(backend, most=3).rows == 2
    monkeypatch.setattr(
        capacity, "step_time", lambda backend, rows, *others: timed(backend, 99, *others)
    )
    assert measure(backend).rows == 0


def test_capacity_measures_real_steps():
    found = measure(TorchBackend(DelayConverter(), 600), most=2, steps=3)
    assert found.p95[1] > 0 and found.tick == 0.025
