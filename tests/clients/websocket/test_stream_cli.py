"""`rtvc stream`: files and the microphone through a live server, and exit codes of every
refusal."""

import json
import time

import numpy as np
import pytest
import soundfile
import soxr
from background import background
from calling import noise
from cards import FakeStream, fake_cards, until
from certificates import certificate_in
from converters import DelayConverter
from pydantic import SecretStr
from serving import gain_voice

from rtvc.cli import main
from rtvc.clients.control.desk import Desk
from rtvc.clients.control.speaking import SpeakingThere
from rtvc.clients.live.audio_streams import STREAMS
from rtvc.clients.live.config import LiveConfig
from rtvc.clients.live.display import line
from rtvc.clients.websocket import mic as mic_module
from rtvc.clients.websocket.mic import RemoteLive, RemotePump, usable
from rtvc.clients.websocket.remote import Remote
from rtvc.engine.admission.access import Access
from rtvc.engine.backends.eager import TorchBackend
from rtvc.engine.streams.session import Session
from rtvc.errors import ServiceError

TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with background(tmp_path_factory.mktemp("voices")) as (_, url):
        yield url


@pytest.fixture
def spoken(tmp_path):
    """A recording of 1.5 seconds at 16 kHz in two channels."""
    path, samples = tmp_path / "in.wav", noise(24_000, 3)
    soundfile.write(path, np.stack([samples, samples], 1), 16_000, subtype="FLOAT")
    return path


def stream(*arguments, expect=0, capsys=None):
    """Runs the command; returns what it printed."""
    assert main(["stream", *map(str, arguments)]) == expect, capsys and capsys.readouterr()
    return capsys.readouterr() if capsys else None


def test_a_file_as_fast_as_it_goes(server, spoken, tmp_path, capsys):
    out = tmp_path / "out.wav"
    result = json.loads(
        stream(
            spoken, "--voice", "half", "-o", out, "--url", server, "--fast", "--json", capsys=capsys
        ).out
    )
    assert (
        result["voice"] == "half"
        and result["duration_s"] == 1.5
        and result["resumed"] == 0
        and "lag_p50_ms" not in result
    )
    x, _ = soundfile.read(spoken)
    y, rate = soundfile.read(out)
    assert rate == 24_000 and len(y) == 36_000
    offline = Session(
        TorchBackend(DelayConverter(), 600), gain_voice(0.5), sample_rate=16_000, output_rate=24_000
    )
    wanted = np.concatenate([offline.push(x[:, 0].astype(np.float32)), offline.flush()])
    np.testing.assert_allclose(
        y, wanted, atol=2 / 32_768
    )  # both ways and the file round to 16 bits
    assert [path.name for path in tmp_path.iterdir()].count("out.wav") == 1 and not list(
        tmp_path.glob(".out*")
    )


def test_opus_gives_the_same_length(server, spoken, tmp_path, capsys):
    from rtvc.engine.protocol.formats import offered

    if "opus" not in offered():
        pytest.skip("libopus or opuslib is not installed")
    stream(
        spoken,
        "--voice",
        "half",
        "-o",
        tmp_path / "out.wav",
        "--url",
        server,
        "--fast",
        "--format",
        "opus",
        capsys=capsys,
    )
    assert soundfile.info(tmp_path / "out.wav").frames == 36_000


def test_a_file_at_the_pace_of_speech(server, spoken, tmp_path, capsys):
    began = time.monotonic()
    printed = stream(
        spoken,
        "--voice",
        "one",
        "--voice",
        "half",
        "-o",
        tmp_path / "out.flac",
        "--url",
        server,
        capsys=capsys,
    ).out
    assert time.monotonic() - began > 1.5
    assert "in the voice of" in printed and "lag p50" in printed and "duration 1.50 s" in printed
    assert soundfile.info(tmp_path / "out.flac").frames == 36_000


def test_a_reference_is_uploaded_and_found_again(server, spoken, tmp_path, capsys):
    reference = tmp_path / "anna.wav"
    soundfile.write(reference, noise(48_000, 4), 24_000)
    for _ in range(2):
        command = [
            spoken,
            "-r",
            reference,
            "--voice",
            "one",
            "-o",
            tmp_path / "out.wav",
            "--url",
            server,
            "--fast",
            "--format",
            "f32",
        ]
        assert "anna-" in stream(*command, capsys=capsys).out


def test_rates_that_the_protocol_does_not_know_are_resampled(server, tmp_path, capsys):
    soundfile.write(tmp_path / "odd.wav", noise(23_000), 23_000)
    stream(
        tmp_path / "odd.wav",
        "--voice",
        "one",
        "-o",
        tmp_path / "out.wav",
        "--url",
        server,
        "--fast",
        capsys=capsys,
    )
    assert soundfile.info(tmp_path / "out.wav").frames == 24_000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--voice", "nobody"], "unknown_voice"),
        (["--voice", "one", "--url", "ws://127.0.0.1:9"], "cannot be reached"),
        (
            ["--voice", "one", "--url", "127.0.0.1:8765"],
            "expected an address like ws://127.0.0.1:8765",
        ),
        (["--voice", "one", "--format", "mp3"], "format = 'mp3'"),
        (["--voice", "one", "--token", "x", "--token-file", "y"], "expected either --token"),
        (["--voice", "one", "--token-file", "nowhere"], "cannot be read"),
        (
            ["--voice", "one", "--ca", "nowhere.pem"],
            "expected certificates as PEM, got nowhere.pem",
        ),
        (["--voice", "one", "--mic"], "expected either a recording or --mic"),
        ([], "no voice came"),
        (["-r", "nowhere.wav"], "expected an audio file, nowhere.wav is not there"),
        (["--voice", "one", "-o", "out.xyz"], ".xyz"),
    ],
)
def test_refusals_exit_with_an_error_and_write_nothing(
    server, spoken, tmp_path, capsys, arguments, said, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    printed = stream(spoken, "--url", server, "--fast", *arguments, expect=2, capsys=capsys)
    assert said in printed.err.replace("\n", "") and "Traceback" not in printed.err
    assert {path.name for path in tmp_path.iterdir()} == {"in.wav"}


def test_tokens_come_from_a_file_or_the_environment(spoken, tmp_path, capsys, monkeypatch):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    (tmp_path / "empty").write_text("\n")
    command = [spoken, "--voice", "one", "-o", tmp_path / "out.wav", "--fast", "--url"]
    with background(tmp_path / "voices", access=Access(SecretStr(TOKEN))) as (_, url):
        assert "unauthorized" in stream(*command, url, expect=2, capsys=capsys).err
        assert (
            "unauthorized" in stream(*command, url, "--token", "wrong", expect=2, capsys=capsys).err
        )
        assert (
            "holds 0 characters"
            in stream(
                *command, url, "--token-file", tmp_path / "empty", expect=2, capsys=capsys
            ).err
        )
        assert not (tmp_path / "out.wav").exists()
        stream(*command, url, "--token-file", tmp_path / "token", capsys=capsys)
        monkeypatch.setenv("RTVC_TOKEN", TOKEN)
        stream(*command, url, capsys=capsys)
        assert (tmp_path / "out.wav").exists()


def test_a_server_behind_tls(spoken, tmp_path, capsys):
    from rtvc.engine.server.app import secure

    certificate, key = certificate_in(tmp_path)
    with background(tmp_path / "voices", tls=secure(certificate, key)) as (_, url):
        assert url.startswith("wss://")
        command = [spoken, "--voice", "one", "-o", tmp_path / "out.wav", "--fast", "--url", url]
        assert "certificate" in stream(*command, expect=2, capsys=capsys).err
        stream(*command, "--ca", certificate, capsys=capsys)


@pytest.fixture
def cards(monkeypatch):
    """Sound cards in place of this machine's."""
    made = fake_cards(monkeypatch)
    monkeypatch.setitem(STREAMS, "auto", FakeStream)
    monkeypatch.setattr(mic_module, "STATS_S", 0.1)
    return made


def test_the_microphone_goes_through_the_server(server, cards, tmp_path):
    config = LiveConfig(block_ms=10.0, margin_ms=60.0, lookback_ms=0.0, record=tmp_path / "take")
    with (
        Remote(server, window=1.0) as remote,
        RemoteLive(remote, ["one", "half"], config, max_lag_ms=1000.0) as live,
    ):
        until(lambda: (live.supervise(), live.pump.outlet.playout.sounded > 60)[1])
        status = live.status()
        assert (
            status.state == "running"
            and 50 < status.lag_p50_ms < 600
            and -30 < status.level_in_db < -20
        )
        assert len(line(status)) <= 120 and "lag" in line(status)
        assert json.loads(json.dumps(status.as_dict()))["resumed"] == 0
        heard_before = len(cards[1].heard)
        desk = Desk(live, SpeakingThere(live, 1.0))
        assert all(desk.press(key) for key in "2bb+-9")
        assert desk.status()["voice"] == "half" and desk.status()["recording"]["on"]
        until(lambda: len(cards[1].heard) > heard_before + 60)
        # the second voice is softer
        until(lambda: 0.01 < np.abs(np.concatenate(cards[1].heard[-12:])).max() < 0.09)
        assert desk.press("m") and live.status().muted and not desk.press("q")
    assert live.status().state == "stopped" and not any(card.running for card in cards)
    heard = np.concatenate(cards[1].heard)
    assert np.abs(heard).max() == pytest.approx(0.1, abs=0.02)
    conversion, said = (
        soundfile.read(path, dtype="float32")[0] for path in sorted((tmp_path / "take").iterdir())
    )
    assert len(conversion) == -(-len(said) * 441 // 480)
    assert np.abs(said).max() == pytest.approx(0.1, abs=0.01)
    early = said[4_800:24_000]  # before the voices were changed
    late = soxr.resample(conversion, 44_100, 48_000)[4_800:24_000]
    np.testing.assert_allclose(late, early, atol=2e-3)


def test_the_end_of_the_session_ends_the_microphone(server, cards):
    with (
        Remote(server, window=1.0) as remote,
        RemoteLive(
            remote, ["one"], LiveConfig(block_ms=10.0, margin_ms=30.0, lookback_ms=0.0)
        ) as live,
    ):
        remote.client.flow.end(ServiceError("the server is gone"))
        with pytest.raises(ServiceError, match="the server is gone"):
            until(lambda: live.supervise())


def test_what_the_network_cannot_take_is_counted(cards):
    class Silent:
        def spawn(self, work):
            work.close()

    pump = RemotePump(Silent(), 48_000, 48_000, 0.03)
    for _ in range(mic_module.WAITING + 5):
        pump.capture(np.zeros(480, np.float32), 0.0)
    assert pump.overflow == 5 * 480
    assert usable(44_100) == 44_100 and usable(37_800) == 48_000


def test_the_command_talks_until_its_time_is_over(server, cards, capsys):
    printed = stream(
        "--mic", "--voice", "one", "--url", server, "--seconds", "1.2", "--json", capsys=capsys
    ).out.splitlines()
    assert (
        json.loads(printed[-1])["state"] == "stopped"
        and json.loads(printed[0])["state"] == "running"
    )
    assert (
        "lag"
        in stream("--mic", "--voice", "one", "--url", server, "--seconds", "0.3", capsys=capsys).err
    )
    stream("--mic", "--voice", "nobody", "--url", server, "--seconds", "1", expect=2, capsys=capsys)
