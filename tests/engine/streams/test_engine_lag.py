"""Lag is bounded: after any stall it is back within 200 ms, and every sample is played once or
declared dropped."""

import numpy as np
import pytest
from converters import DelayConverter, TestVoice

from rtvc.benchmarks.live.conversation import Stall, converse
from rtvc.engine.backends.eager import TorchBackend
from rtvc.engine.callback.drift import LIMIT, DriftControl, DriftResampler
from rtvc.engine.callback.duplex import Pump
from rtvc.engine.callback.playout import Playout
from rtvc.engine.streams.backlog import Backlog, Drop
from rtvc.engine.streams.session import Session
from rtvc.errors import EngineError


def live(rate=24_000, **settings):
    backend = TorchBackend(DelayConverter(), 600)
    session = Session(
        backend,
        TestVoice(gain=1.0),
        sample_rate=rate,
        backlog=Backlog(24_000, nominal=0.035, limit=0.060),
    )
    return Pump(session, **settings)


SCALE = 1 << 21
"""Counted samples are divided by it, exactly, where they must keep within full scale."""


def counting(start, count):
    """Every sample says where it stands: exact in float32 up to 2^24."""
    return np.arange(start + 1, start + count + 1, dtype=np.float32)


def test_a_backlog_gives_everything_while_it_is_fresh():
    backlog = Backlog(1000, nominal=0.05, limit=0.1)
    backlog.append(counting(0, 80), captured=5.0)
    assert backlog.trim(now=5.1) == 0 and backlog.seconds == 0.08
    np.testing.assert_array_equal(backlog.take(80), counting(0, 80))
    with pytest.raises(EngineError, match="a demand of 1"):
        backlog.take(1)


def test_a_stale_backlog_is_cut_to_the_nominal_age_with_a_fade():
    backlog = Backlog(1000, nominal=0.05, limit=0.1)
    backlog.append(np.full(400, 1.0), captured=5.0)
    backlog.append(np.full(100, -1.0), captured=5.4)
    assert backlog.trim(now=5.5) == 450
    assert backlog.captured() == pytest.approx(5.45) and len(backlog) == 50
    rest = backlog.take(50)
    assert np.all(np.diff(rest[:6]) < 0) and rest[0] < 1 and np.all(rest[5:] == -1)
    assert (
        list(backlog.drops) == [Drop(0, 450, 5.5)]
        and backlog.dropped == 450
        and backlog.taken == 500
    )


def test_a_gap_in_capture_times_is_respected():
    """The sound card lost two seconds: what came before is stale, what came after is not."""
    backlog = Backlog(1000, nominal=0.05, limit=0.1)
    backlog.append(np.full(100, 1.0), captured=1.0)
    backlog.append(np.full(60, 2.0), captured=3.0)
    assert backlog.trim(now=3.06) == 110
    assert backlog.captured() == pytest.approx(3.01)


def test_a_cut_that_empties_the_queue_fades_into_what_comes_next():
    backlog = Backlog(1000, nominal=0.0, limit=0.1)
    backlog.append(np.full(100, 1.0), captured=1.0)
    assert backlog.trim(now=2.0) == 100 and len(backlog) == 0
    backlog.append(np.zeros(20), captured=2.0)
    rest = backlog.take(20)
    assert np.all(np.diff(rest[:6]) < 0) and 0 < rest[0] < 1


def test_a_backlog_never_holds_more_than_its_capacity():
    backlog = Backlog(1000, capacity=0.5)
    for start in range(0, 2_000, 100):
        backlog.append(counting(start, 100))
    assert len(backlog) == 500 and backlog.dropped == 1_500
    assert backlog.take(500)[-1] == 2_000
    with pytest.raises(EngineError, match="at least the nominal"):
        Backlog(1000, nominal=0.2, limit=0.1)


@pytest.mark.parametrize("machine", [False, True])
@pytest.mark.parametrize("length", [0.05, 0.1, 0.25, 0.7, 2.0, 5.0])
def test_lag_returns_to_nominal_within_200_ms_of_any_stall(length, machine):
    pump = live(correct_drift=False)
    result = converse(pump, 4.0 + length, counting, stalls=[Stall(2.0, length, machine)])
    assert result.recoveries[0] <= 0.2
    settled = result.lags[result.times > 2.2 + length]
    before = result.lags[(result.times > 1.5) & (result.times < 2.0)]
    assert len(settled) > 100 and settled.max() <= before.max() + 0.024
    if length > 0.1:
        assert pump.playout.underruns >= 1 or machine
        assert result.dropped > 0 or machine


def test_random_stalls_lose_nothing_that_is_not_declared_and_repeat_nothing():
    """What was played, apart from fades, is the input in order; the holes are exactly the declared
    drops."""
    rng, pump = np.random.default_rng(3), live(correct_drift=False)
    stalls, at = [], 2.0
    while at < 40:
        stalls.append(Stall(at, float(rng.uniform(0.05, 1.5)), bool(rng.random() < 0.2)))
        at += stalls[-1].length + float(rng.uniform(1.0, 3.0))
    result = converse(
        pump, 44.0, lambda start, count: counting(start, count) / SCALE, stalls=stalls, record=True
    )
    assert max(result.recoveries) <= 0.2
    played = result.played * SCALE
    whole = played[(played > 0) & (played == np.round(played))]
    whole = whole[
        np.flatnonzero(np.diff(whole, prepend=whole[0] - 1) == 1)
    ]  # drop the few whole numbers inside fades
    assert np.all(np.diff(whole) > 0)
    faded = (
        2
        * 120
        * (pump.playout.underruns + pump.playout.drops + len(pump.session.chunker.backlog.drops))
    )
    offered = np.ptp(whole) + 1
    lost_by_card = sum(round(s.length * 24_000) for s in stalls if s.machine)
    missing = offered - len(whole)
    assert (
        0
        <= missing - result.dropped - lost_by_card + sum(240 for s in stalls if s.machine)
        <= faded + 600 * len(stalls)
    )
    assert result.dropped > 0


def test_clocks_that_differ_are_corrected_without_drops():
    """One early cut may bring the queue to its margin; once drift control has settled there is
    none."""
    pump, dropped = live(margin=0.020), []

    def tone(at, count):
        return np.sin(np.arange(at, at + count) / 20).astype(np.float32)

    result = converse(
        pump, 60.0, tone, skew=-4e-4, each_second=lambda now: dropped.append(pump.dropped)
    )
    assert dropped[-1] == dropped[20] and pump.playout.drops <= 1 and pump.playout.underruns == 0
    late = result.lags[result.times > 30]
    assert np.ptp(late) < 0.030  # the block pattern alone spans 25 ms
    assert pump.outlet.control.correction == pytest.approx(-4e-4, abs=3e-4)


def test_no_correction_is_no_change_and_a_correction_keeps_the_tone():
    x = np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000).astype(np.float32)
    same = DriftResampler()
    y = np.concatenate([same.push(x[at : at + 480], 0.0) for at in range(0, 48_000, 480)])
    np.testing.assert_allclose(y, x[: len(y)], atol=1e-7)
    faster = DriftResampler()
    y = np.concatenate([faster.push(x[at : at + 480], 1e-3) for at in range(0, 48_000, 480)])
    assert len(y) == pytest.approx((len(x) - 16) * 1.001, abs=2)
    wanted = np.sin(2 * np.pi * 440 * np.arange(len(y)) / 1.001 / 48_000)
    assert np.abs(y - wanted)[100:].max() < 1e-4


def test_the_controller_stays_within_its_limit():
    control = DriftControl(0.02)
    for _ in range(1_000):
        control.update(1.0, 0.1)
    assert control.correction == -LIMIT
    for _ in range(3_000):
        control.update(0.0, 0.1)
    assert control.correction > 0


def test_playout_fades_out_at_an_underrun_and_waits_for_its_margin():
    playout, out = Playout(8_000, margin=0.01), np.empty(80, np.float32)
    playout.write(np.ones(100, np.float32), captured=0.9)
    playout.read(out, at=1.0)
    assert np.all(out == 0) and playout.ring.written == 0  # nobody had listened yet
    playout.write(np.ones(100, np.float32), captured=1.0)
    playout.read(out, at=1.1)
    assert np.all(out == 0) and playout.underruns == 0  # 80 asked, 80 margin: 160 are not there yet
    playout.write(np.ones(100, np.float32), captured=1.0125)
    playout.read(out, at=1.11)
    assert out[0] < 0.1 and out[-1] == 1 and playout.lag == pytest.approx(0.11)
    playout.read(out, at=1.12)
    playout.read(out, at=1.13)
    assert playout.underruns == 1 and np.all(np.abs(np.diff(out)) < 0.05) and np.all(out[40:] == 0)
    playout.write(np.ones(100, np.float32), captured=1.0)
    playout.read(out, at=1.14)
    assert np.all(out == 0)


def test_playout_drops_what_slept_with_the_machine():
    playout, out = Playout(8_000, margin=0.0), np.empty(80, np.float32)
    playout.read(out, at=0.9)
    playout.write(np.ones(1_000, np.float32), captured=1.0)
    playout.read(out, at=1.0)
    playout.read(out, at=60.0)
    assert np.all(out[50:] == 0) and playout.dropped == 920 and playout.drops == 1
    with pytest.raises(EngineError, match="margin"):
        Playout(8_000, margin=3.0)


def test_a_muted_pump_stays_in_time():
    pump = live(correct_drift=False)
    pump.muted = True
    result = converse(pump, 1.0, counting, record=True)
    assert np.all(result.played[12_000:] == 0) and np.nanmax(result.lags) < 0.12


def test_a_delay_of_the_sound_system_itself_is_not_held_against_the_audio():
    """Input that always arrives 300 ms late is late, but not stale: dropping it would win nothing
    back."""
    pump = live(correct_drift=False)
    for index in range(300):
        now = 10.0 + 0.010 * index
        pump.capture(counting(240 * index, 240), now - 0.310, now)
        pump.turn(now)
    assert pump.dropped == 0 and pump.device_delay == pytest.approx(0.3, abs=1e-6)
    pump.turn(14.0)
    pump.capture(counting(240 * 300, 240), 13.69, 14.0)
    pump.capture(counting(240 * 301, 4_800), 13.2, 14.0)
    pump.turn(14.5)
    assert pump.dropped > 0
