"""Live conversion without a sound card: the worker, the keys, the display, lost devices, and the
choice of devices."""

import io
import json
import os
import time

import numpy as np
import pytest
import soundfile
from cards import ALL, CARD, MIC, SPEAKER, FakeStream, fake_cards, until
from converters import DelayConverter, TestVoice

from rtvc.clients.live.config import LiveConfig
from rtvc.clients.live.devices import pick
from rtvc.clients.live.display import line, meter
from rtvc.clients.live.duplex_audio import level
from rtvc.clients.live.keys import pressed, unbuffered
from rtvc.clients.live.live import Live
from rtvc.clients.sound.heartbeat import Heartbeat
from rtvc.engine.backends.eager import TorchBackend
from rtvc.errors import ConfigError, DeviceError


@pytest.fixture
def cards(monkeypatch):
    return fake_cards(monkeypatch)


def make(**settings):
    config = LiveConfig(gate=False, margin_ms=30, **settings)
    return Live(
        TorchBackend(DelayConverter(), 300), TestVoice(gain=1.0), config, streams=FakeStream
    )


def test_speech_goes_from_one_card_to_the_other(cards, tmp_path):
    with make(record=tmp_path / "take", monitor=True) as live:
        until(lambda: live.pump.playout.sounded > 40)
        status = live.status()
        assert status.state == "running" and status.steps is not None and status.steps > 20
        assert 30 < status.lag_p50_ms < 400
        # 12.5 ms of chunk, 10 of block, 30 of margin, and what the converter itself takes
        assert status.expected_ms > 60
        assert -30 < status.level_in_db < -20
        assert json.loads(json.dumps(status.as_dict()))["steps"] == status.steps
        assert "lag" in line(status) and len(line(status)) <= 120
    assert live.status().state == "stopped"
    heard = np.concatenate(cards[1].heard)
    assert np.abs(heard).max() == pytest.approx(0.1, abs=0.01)
    assert any(np.abs(np.concatenate(cards[2].heard)) > 0.05)
    conversion, source = sorted((tmp_path / "take").iterdir())
    said, rate = soundfile.read(source)
    assert rate == 48_000 and np.abs(said).max() == pytest.approx(0.1, abs=0.01)
    info = soundfile.info(conversion)
    assert info.samplerate == 44_100 and info.frames == -(-len(said) * 441 // 480)


def test_a_lost_device_is_taken_back_when_it_returns(cards):
    with make() as live:
        until(lambda: live.pump.playout.sounded > 5)
        cards[0].alive = False
        live.supervise()
        assert live.devices.state in ("lost", "running") and live.status().losses == 1
        until(lambda: (live.supervise(), live.devices.state == "running")[1])
        before = live.pump.playout.sounded
        until(lambda: live.pump.playout.sounded > before + 5)
    assert len(cards) >= 4 and not any(card.running for card in cards)


def test_a_device_that_stays_away_is_reported(cards, monkeypatch):
    with make() as live:
        cards[0].alive = False

        def gone(*_, **__):
            raise DeviceError("it is unplugged")

        monkeypatch.setattr(live.devices, "opener", gone)
        live.supervise()
        until(lambda: (live.supervise(), live.devices.problem == "it is unplugged")[1])
        assert line(live.status()) == "lost: it is unplugged" and live.devices.losses == 1


def test_a_device_that_cannot_be_opened_leaves_none_open(cards):
    live, opened = make(), list[FakeStream]()

    def once(*arguments, **settings):
        if opened:
            raise DeviceError("it is taken")
        opened.append(FakeStream(*arguments, **settings))
        return opened[0]

    live.devices.opener = once
    with pytest.raises(DeviceError, match="it is taken"), live:
        pass
    assert not opened[0].running and live.status().state == "stopped"


def test_what_ends_the_worker_is_raised_where_it_is_supervised(cards, monkeypatch):
    live = make()

    def broken(now):
        raise ArithmeticError("the model is broken")

    monkeypatch.setattr(live.pump, "turn", broken)
    with pytest.raises(ArithmeticError, match="the model is broken"), live:
        until(lambda: live.supervise())


def test_keys_are_read_one_by_one():
    reader, writer = os.pipe()
    with os.fdopen(reader) as stream, unbuffered(io.StringIO()):
        assert pressed(stream) == ""
        os.write(writer, b"m")
        assert pressed(stream, 1.0) == "m"
    os.close(writer)


def test_keys_arrive_without_enter_on_a_terminal():
    leader, follower = os.openpty()
    with os.fdopen(follower) as stream, unbuffered(stream):
        os.write(leader, b"b")
        assert pressed(stream, 2.0) == "b"
    os.close(leader)


def test_the_device_that_was_meant_is_found():
    assert pick(None, "input", ALL) is MIC and pick(None, "output", ALL) is SPEAKER
    assert pick("2", "output", ALL) is CARD and pick("card", "input", ALL) is CARD
    assert pick("Blue mic", "input", ALL) is MIC
    for wanted, kind in [("blue", "input"), ("7", "input"), ("Speaker", "input")]:
        with pytest.raises(DeviceError, match="rtvc devices"):
            pick(wanted, kind, ALL)
    with pytest.raises(DeviceError, match="there are: none"):
        pick(None, "input", [])


def test_unknown_sound_systems_and_settings_are_refused():
    with pytest.raises(ConfigError, match="abacus"):
        Live(TorchBackend(DelayConverter(), 300), TestVoice(gain=1.0), LiveConfig(sound="abacus"))
    with pytest.raises(ValueError, match="Extra inputs"):
        LiveConfig(blok_ms=3)


def test_the_heartbeat_mixes_channels_and_doubts_strange_delays():
    got = []
    beating = Heartbeat(lambda block, at: got.append((block.copy(), at)), 2, 1_000, True)
    before = time.perf_counter()
    beating.beat(np.array([[1.0, 0.0]] * 100, np.float32), -5.0, True)
    assert got[0][0].tolist() == [0.5] * 100 and got[0][1] == pytest.approx(before - 0.1, abs=0.05)
    assert beating.xruns == 1 and beating.fresh
    out = np.zeros((4, 2), np.float32)
    player = Heartbeat(lambda block, at: block.fill(0.25), 2, 1_000, False)
    player.beat(out, 0.01, False)
    assert (out == 0.25).all()


def test_meters():
    assert meter(-60) == "········" and meter(0) == "████████" and meter(-30).count("█") == 4
    assert level(np.zeros(10, np.float32)) == -120.0 and level(
        np.ones(10, np.float32)
    ) == pytest.approx(0.0, abs=1e-9)
    assert level(np.zeros(0, np.float32)) == -120.0
