"""What keys, page and `rtvc control` do to a conversion that runs, without a sound card."""

import json

import numpy as np
import pytest
from cards import FakeStream, fake_cards, until
from converters import DelayConverter
from serving import gain_voice

from rtvc.clients.control.change import Change, of_words
from rtvc.clients.control.desk import Desk
from rtvc.clients.control.speaking import SpeakingHere
from rtvc.clients.control.voicebook import Voicebook, numbered
from rtvc.clients.input.suppressor import suppressor
from rtvc.clients.live.config import LiveConfig
from rtvc.clients.live.live import Live
from rtvc.engine.backends.eager import TorchBackend
from rtvc.errors import ConfigError, DependencyError, DeviceError, VoiceError


@pytest.fixture
def cards(monkeypatch):
    return fake_cards(monkeypatch)


@pytest.fixture
def desk(cards, tmp_path):
    config = LiveConfig(gate=False, margin_ms=30, record=None)
    voices = {"one": gain_voice(1.0, "one"), "half": gain_voice(0.5, "half")}
    with Live(
        TorchBackend(DelayConverter(), 300), voices["one"], config, streams=FakeStream
    ) as live:
        live.audio.recorder.folder = tmp_path / "takes"
        book = Voicebook(
            list(voices), list(voices.values()), lambda path, name: gain_voice(0.25, name)
        )
        yield Desk(live, SpeakingHere(live, book))


def do(desk, words):
    desk.change(of_words(words.split()))
    return desk.status()


def loudest(stream, blocks=20):
    return np.abs(np.concatenate(stream.heard[-blocks:])).max()


def test_keys(desk):
    assert desk.press("b") and desk.status()["bypass"] and desk.press("b")
    assert desk.press("m") and desk.status()["muted"] and desk.press("m")
    assert desk.press("2") and desk.status()["voice"] == "half"
    assert all(desk.press(key) for key in ("9", "x", "", "+", "+", "-"))
    assert desk.status()["pitch"] == 1.0 and not desk.status()["bypass"]
    assert desk.press("r") and desk.status()["recording"]["on"] and desk.press("r")
    assert not desk.press("q")


def test_everything_is_changed_while_somebody_speaks(desk, cards):
    until(lambda: desk.live.pump.playout.sounded > 30)
    assert loudest(cards[1]) == pytest.approx(0.1, abs=0.01)
    status = do(desk, "mix one:1 half:1")
    assert status["voice"] == {"one": 1.0, "half": 1.0} and json.dumps(status)
    sounded = desk.live.pump.playout.sounded
    until(lambda: desk.live.pump.playout.sounded > sounded + 60)
    assert loudest(cards[1]) == pytest.approx(0.075, abs=0.01)
    do(desk, "bypass on")
    until(lambda: desk.live.pump.playout.sounded > sounded + 130)
    assert loudest(cards[1]) == pytest.approx(0.1, abs=0.01)
    assert do(desk, "prosody 0.5")["prosody"] == 0.5 and do(desk, "pitch down")["pitch"] == -1.0
    do(desk, "mute on")
    until(lambda: loudest(cards[1], 5) == 0)


def test_devices_are_changed_while_the_others_go_on(desk, cards):
    until(lambda: desk.live.pump.playout.sounded > 10)
    assert do(desk, "input card")["input"] == "card"
    assert [card.running for card in cards] == [False, True, True]
    assert do(desk, "output card")["output"] == "card"
    before = desk.live.pump.playout.sounded
    until(lambda: desk.live.pump.playout.sounded > before + 20)
    with pytest.raises(DeviceError, match="no input device fits nothing"):
        do(desk, "input nothing")
    assert desk.status()["input"] == "card" and desk.status()["state"] == "running"
    assert do(desk, "monitor default")["monitor"] == ""
    monitor = cards[-1]
    until(lambda: len(monitor.heard) > 30 and loudest(monitor, 5) > 0.05)
    assert do(desk, "monitor off")["monitor"] is None and not monitor.running


def test_a_device_that_cannot_be_opened_gives_the_old_one_back(desk, monkeypatch):
    opener = desk.audio.devices.opener

    def broken(device, *rest, **settings):
        if device.name == "Blue card":
            raise DeviceError("busy")
        return opener(device, *rest, **settings)

    monkeypatch.setattr(desk.audio.devices, "opener", broken)
    with pytest.raises(DeviceError, match="busy"):
        do(desk, "input card")
    assert desk.status()["input"] == "" and desk.status()["state"] == "running"
    before = desk.live.pump.playout.sounded
    until(lambda: desk.live.pump.playout.sounded > before + 20)


def test_the_look_ahead_is_refused_with_the_reason(desk):
    with pytest.raises(ConfigError, match="one setting of this model"):
        do(desk, "lookahead 50")


def test_the_gate_is_switched(desk):
    assert desk.status()["gate"] is False
    assert do(desk, "gate on")["gate"] is True and do(desk, "gate")["gate"] is False


def test_gain_and_suppression_are_switched_and_their_delay_is_declared(desk):
    try:
        suppressor(48_000)
    except DependencyError as missing:
        pytest.skip(str(missing))
    before = desk.status()
    assert "gain_db" not in before and do(desk, "agc on")["gain_db"] == 0.0
    after = do(desk, "denoise on")
    assert after["denoise"] and after["expected_ms"] == pytest.approx(
        before["expected_ms"] + 1000 * desk.audio.front.late, abs=0.1
    )
    assert not do(desk, "denoise off")["denoise"]


def test_voices_are_made_of_recordings_and_of_the_microphone(desk):
    assert desk.voice_of("ben", b"RIFF")["name"] == "ben"
    assert desk.status()["voices"] == ["one", "half", "ben"]
    with pytest.raises(VoiceError, match="take another"):
        desk.voice_of("half", b"RIFF")
    assert do(desk, "voice ben")["voice"] == "ben"
    with pytest.raises(VoiceError, match="expected one of"):
        do(desk, "voice nobody")
    with pytest.raises(ConfigError, match="2 to 60 seconds"):
        desk.voice_of_microphone("me", 1.0)
    heard = []
    desk.speaking.add = lambda name, recording: heard.append(recording) or {"name": name}
    assert desk.voice_of_microphone("me", 2.0) == {"name": "me"}
    ((samples, rate),) = heard
    assert rate == 48_000 and len(samples) == 96_000 and np.abs(samples).max() > 0.09


def test_what_cannot_be_here_is_refused(desk):
    with pytest.raises(ConfigError, match="virtual cable"):
        do(desk, "virtual-mic on")
    desk.change(Change())


def test_equal_names_are_numbered():
    assert numbered([gain_voice(1.0, "anna")] * 3) == ["anna", "anna-2", "anna-3"]
