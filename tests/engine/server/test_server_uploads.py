"""Uploaded recordings become voices; hostile recordings and names do nothing at all."""

import asyncio
import io
import os
import sys
import time

import numpy as np
import pytest
import soundfile
from calling import Client, Refusal, noise, until
from serving import served
from standins import speech

from rtvc.engine.protocol.fields import Code
from rtvc.engine.protocol.messages import Error, ListVoices, VoiceList, VoiceReady
from rtvc.engine.protocol.refusals import Refusal as ServerRefusal
from rtvc.engine.voices import decode
from rtvc.engine.voices.store import RELIST_S, VoiceStore, check_name

TOKEN = "a-long-and-secret-token"


def recording(seconds=2.0, rate=16_000, format="WAV", data=None):
    file = io.BytesIO()
    soundfile.write(file, speech(seconds, rate) if data is None else data, rate, format=format)
    return file.getvalue()


async def upload(client, name, data):
    for frame in client.side.upload(name, data):
        await client.send(frame)
    return await client.expect(VoiceReady)


def test_recordings_become_voices(tmp_path):
    async def main():
        async with served(tmp_path) as (_, url), Client(url) as client:
            for name, format in [("anna", "WAV"), ("béla 2", "FLAC"), ("Ωmega", "OGG")]:
                ready = await upload(client, name, recording(format=format))
                assert ready.name == name and abs(ready.seconds - 2) < 0.1
                started = await client.start(voice=name)
                assert started.voice == name
                await client.stop()
            await client.send(ListVoices().text())
            assert (await client.expect(VoiceList)).voices == (
                "anna",
                "béla 2",
                "half",
                "one",
                "Ωmega",
            )

    asyncio.run(main())
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "anna.voice",
        "béla 2.voice",
        "half.voice",
        "one.voice",
        "Ωmega.voice",
    ]


def test_what_phones_and_browsers_record_becomes_a_voice(tmp_path):
    pytest.importorskip("av", reason="PyAV is not installed: pip install 'rtvc-engine[formats]'")
    from containers import contained

    said = speech(2.0, 48_000)

    async def main():
        async with served(tmp_path) as (_, url), Client(url) as client:
            for suffix in (".m4a", ".mp4", ".webm", ".aac", ".wma"):
                data = contained(suffix, said, 48_000, video=suffix == ".mp4")
                ready = await upload(client, suffix[1:], data)
                exact = suffix not in (".aac", ".wma")
                assert ready.seconds == pytest.approx(2.0, abs=1e-9 if exact else 0.1), suffix

    asyncio.run(main())


def test_the_decoder_reads_containers_and_bounds_them(monkeypatch):
    pytest.importorskip("av", reason="PyAV is not installed: pip install 'rtvc-engine[formats]'")
    from containers import contained

    data = contained(".m4a", speech(1.0, 48_000), 48_000)
    rate, samples = decode.decode(data, 2.0)
    assert rate == 48_000 and len(samples) == 4 * 48_000
    with pytest.raises(ValueError, match=r"longer than 0\.5 s"):
        decode.decode(data, 0.5)
    with pytest.raises(ValueError, match="no audio file"):
        decode.decode(data[:400], 2.0)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=r"it is M4A or MP4, .*'rtvc-engine\[formats\]'"):
        decode.decode(data, 2.0)


NAMES = [
    "../evil",
    "..",
    "a/b",
    "/etc/passwd",
    "a\\b",
    ".hidden",
    "",
    "a\x00b",
    "a\nb",
    "x" * 65,
    "con",
    "a..b",
    "trailing.",
    "%2e%2e/x",
    "~root",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_lead_elsewhere_are_refused(tmp_path, name):
    store = VoiceStore(tmp_path / "voices")
    for ask in (check_name, store.get, store.vacant, store.choose):
        with pytest.raises(ServerRefusal) as refused:
            ask(name)
        assert refused.value.error.code is Code.BAD_NAME


def test_uploads_that_cannot_be_used_are_refused_and_leave_nothing(tmp_path, caplog):
    hours = np.zeros(16_000 * 3_600, np.int16)
    bomb = recording(format="FLAC", data=hours)
    lying = bytearray(recording(2.0, format="WAV"))
    lying[24:28] = (1).to_bytes(4, "little")  # one sample a second: two seconds become nine hours
    assert len(bomb) < 1 << 20
    cases = [
        ("bomb", bomb, "longer than 120 s"),
        ("lying", bytes(lying), "got 1 at 1 Hz"),
        ("text", b"not audio" * 100, "no audio file"),
        ("cut", recording()[:20], "no audio file"),
        ("pickle", b"\x80\x04cos\nsystem\n(S'id'\ntR.", "no audio file"),
    ]

    async def main():
        async with (
            served(tmp_path, uploads_per_minute=100, upload_bytes=1 << 20) as (service, url),
            Client(url) as client,
        ):
            for name, data, reason in cases:
                began = time.perf_counter()
                with pytest.raises(Refusal, match=reason):
                    await upload(client, name, data)
                assert time.perf_counter() - began < 10
            with pytest.raises(Refusal, match="too_large"):
                await upload(client, "large", bytes((1 << 20) + 1))
            with pytest.raises(Refusal, match="name_taken"):
                await upload(client, "one", recording())
            with pytest.raises(Refusal, match="bad_name"):
                await upload(client, "../../one", recording())
            with pytest.raises(Refusal, match="bad_name"):
                await client.start(voice="../one")
            assert service.uploads.under_way == 0
            await client.start()
            await client.speak(noise(600))
            assert (await client.stop()).samples_out == 600

    asyncio.run(main())
    assert sorted(os.listdir(tmp_path)) == ["half.voice", "one.voice"]
    assert "code=bad_upload" in caplog.text and "code=bad_name" in caplog.text


def test_decoding_is_stopped_when_it_takes_too_long(tmp_path):
    async def main():
        async with served(tmp_path, decode_s=0.05) as (_, url), Client(url) as client:
            with pytest.raises(Refusal, match="longer than 0\\.05 s"):
                await upload(client, "slow", recording(60.0))

    asyncio.run(main())


def test_uploads_are_counted_and_the_store_is_bounded(tmp_path):
    async def main():
        async with (
            served(tmp_path, uploads_per_minute=2, voices=3, uploads_at_once=1) as (service, url),
            Client(url) as client,
        ):
            await upload(client, "third", recording())
            with pytest.raises(Refusal, match="store_full"):
                await upload(client, "fourth", recording())
            with pytest.raises(Refusal, match="rate_limited"):
                await upload(client, "fifth", recording())
            async with Client(url) as other, Client(url) as third:
                (tmp_path / "third.voice").unlink()
                await asyncio.sleep(RELIST_S)  # until then the store may remember it
                frames = list(other.side.upload("x", bytes(100_000)))
                await other.send(frames[0])
                async with asyncio.timeout(120):
                    while service.uploads.under_way == 0:
                        await asyncio.sleep(0.01)
                with pytest.raises(Refusal, match="under way"):
                    await upload(third, "y", recording())
            async with asyncio.timeout(120):
                while service.uploads.under_way:  # given up by who left
                    await asyncio.sleep(0.01)

    asyncio.run(main())


def test_a_file_that_never_arrives_gives_its_place_back(tmp_path):
    async def main():
        async with served(tmp_path, upload_s=0.3) as (service, url), Client(url) as client:
            await client.send(next(iter(client.side.upload("slow", bytes(100_000)))))
            await until(lambda: service.uploads.under_way == 1)
            error = await client.expect(Error)
            assert error.code is Code.BAD_UPLOAD and error.fatal
            await until(lambda: service.uploads.under_way == 0)

    asyncio.run(main())


def test_the_decoder_alone():
    rate, samples = decode.decode(
        recording(1.0, 16_000, data=np.stack([speech(1.0), -0.5 * speech(1.0)], 1)), 2.0
    )
    assert rate == 16_000
    np.testing.assert_allclose(
        np.frombuffer(samples, "<f4"), speech(1.0), atol=1e-4
    )  # opposed: the loudest channel alone
    for data, reason in [
        (b"", "no audio file"),
        (recording(2.1), "longer than 2 s"),
        (recording(0.5, 192_000, data=np.zeros(2 * 48_001, np.float32)), r"longer than 0\.5 s"),
        (recording(data=np.zeros((8_000, 9), np.float32)), "got 9 at 16000 Hz"),
        (recording(data=np.zeros(0, np.float32)), "no samples"),
    ]:
        with pytest.raises(ValueError, match=reason):
            decode.decode(data, 2.0)
