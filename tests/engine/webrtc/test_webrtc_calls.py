"""Two peers, one of them a server: calls convert, and share sessions, limits, tokens and refusals
with the websocket."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from calling import Client, until
from calling import Refusal as Refused
from calls import loudness, say, talk, tone
from pydantic import SecretStr
from serving import served

from rtvc.clients.webrtc.call import call
from rtvc.engine.admission.access import Access
from rtvc.engine.protocol.fields import Code
from rtvc.engine.protocol.messages import Resume, Resumed
from rtvc.engine.protocol.refusals import Refusal
from rtvc.errors import ServiceError

ROOT = Path(__file__).parents[3]
TOKEN = "a-long-and-secret-token"


def test_a_call_is_converted_and_says_goodbye(tmp_path, doors):
    async def main():
        async with served(tmp_path, webrtc=True) as (service, url):
            async with call(url, "half") as caller:
                assert caller.started.format == "opus" and caller.started.sample_rate == 48_000
                heard, totals = await talk(caller, x := tone(1.5))
                assert totals.samples_in == totals.samples_out == len(x)
                assert totals.dropped_ms == 0
                assert caller.heard.lost == 0 and len(heard) == len(x)
                assert 0.4 < loudness(heard) / loudness(x) < 0.6
                spectrum = np.abs(np.fft.rfft(heard[12_000:60_000]))
                assert spectrum.argmax() == 440
                await caller.start("one")
                heard, _ = await talk(caller, x)
                assert 0.8 < loudness(heard) / loudness(x) < 1.2
            await until(lambda: not (doors[0].peers or service.connections or service.sessions))
            assert not service.ended
            errors = service.metrics.registry.get_sample_value("rtvc_internal_errors_total")
            assert not errors

    asyncio.run(main())


def test_voices_uploads_changes_and_counts_go_over_the_data_channel(tmp_path):
    async def main():
        async with served(tmp_path, webrtc=True) as (service, url), call(url) as caller:
            assert set(await caller.voices()) == {"one", "half"}
            recording = (ROOT / "examples/reference.flac").read_bytes()
            assert len(recording) > 65_536  # more than a message of the data channel holds
            assert (await caller.upload(recording, "anna")).name == "anna"
            with pytest.raises(Refusal, match="name_taken"):
                await caller.upload(recording, "anna")
            with pytest.raises(Refusal, match="unknown_voice"):
                await caller.start("nobody")
            await caller.start("one", pitch=2.0)
            await say(caller, tone(0.5))
            changed = await caller.update(voice="anna", wet=0.5)
            assert (changed.voice, changed.wet, changed.pitch) == ("anna", 0.5, 2.0)
            assert (await caller.stats()).samples_in > 12_000
            assert [session.voice for session in service.sessions.values()] == ["anna"]

    asyncio.run(main())


def test_places_are_shared_with_the_websocket(tmp_path):
    async def main():
        async with served(tmp_path, webrtc=True, rows=1, resume_s=0.1) as (service, url):
            async with call(url, "one"), Client(url) as client:
                with pytest.raises(Refused, match="full"):
                    await client.start()
            await until(lambda: not service.sessions)
            async with Client(url) as client:
                await client.start()
                with pytest.raises(Refusal) as refused:
                    async with call(url, "one"):
                        pass
                assert refused.value.code is Code.FULL

    asyncio.run(main())


def test_the_token_is_asked_for_at_the_door_and_inside(tmp_path, doors):
    async def main():
        access = Access(SecretStr(TOKEN))
        async with served(tmp_path, webrtc=True, access=access) as (service, url):
            for wrong in (None, "another-token-of-somebody"):
                with pytest.raises(ServiceError, match="HTTP 401"):
                    async with call(url, token=wrong):
                        pass
            assert not doors[0].peers and service.failures.remembered == 1
            async with call(url, "one", token=TOKEN) as caller:
                heard, _ = await talk(caller, tone(0.3))
                assert len(heard) == 0.3 * 48_000
            caller = call(url, token=TOKEN)
            hello = caller.side.hello
            caller.side.hello = lambda token: hello("another-token-of-somebody")
            with pytest.raises(Refusal) as refused:
                async with caller:
                    pass
            assert refused.value.code is Code.UNAUTHORIZED

    asyncio.run(main())


def test_who_cannot_be_reached_is_told_why(tmp_path):
    async def main():
        async with served(tmp_path) as (_, url):
            with pytest.raises(ServiceError, match="--webrtc"):  # takes no calls
                async with call(url):
                    pass
        with pytest.raises(ServiceError, match="cannot be reached"):
            async with call(url):
                pass

    asyncio.run(main())


def test_a_lost_call_can_be_taken_up_again(tmp_path, doors):
    async def main():
        async with served(tmp_path, webrtc=True) as (service, url):
            async with call(url, "one") as caller:
                await say(caller, tone(0.4))
                started = caller.started
                for peer in list(doors[0].peers):
                    peer._leave(well=False)  # as when nothing comes any more
                session = service.sessions[started.session]
                await until(lambda: session.listener is None)
                said = session.samples_in
                async with call(url) as again:
                    resume = Resume(session=started.session, key=started.key, received=0)
                    await again._questions.ask(resume.text(), Resumed)
                    heard, totals = await talk(again, tone(0.4))
                    assert totals.samples_in == said + 0.4 * 48_000
                    assert totals.samples_out == totals.samples_in
                    assert loudness(heard) > 0.1
            await until(lambda: not service.sessions)

    asyncio.run(main())


def test_a_server_that_goes_down_says_so_in_calls_and_takes_no_more(tmp_path):
    async def main():
        serving = served(tmp_path, webrtc=True, drain_s=20.0)
        async with serving as (service, url), call(url, "one") as caller:
            draining = asyncio.create_task(service.drain())
            await asyncio.sleep(0)
            with pytest.raises(Refusal) as refused:
                async with call(url):
                    pass
            assert refused.value.code is Code.DRAINING
            heard, totals = await talk(caller, tone(0.3))
            assert totals.samples_out == len(heard) == 0.3 * 48_000
            await draining  # the last session has ended

    asyncio.run(main())


def test_the_command_says_what_calls_need(tmp_path, capsys, monkeypatch):
    from rtvc.cli import main
    from rtvc.engine.protocol import formats
    from rtvc.engine.webrtc import speech

    monkeypatch.setattr(speech, "opus_library", lambda: None)
    assert formats is not speech
    assert main(["serve", "--webrtc", "--port", "0"]) != 0
    assert "rtvc-engine[webrtc]" in capsys.readouterr().err
    assert main(["serve", "--webrtc", "--ray", "--port", "0", "--voices", str(tmp_path)]) != 0
    assert "lets no UDP through" in capsys.readouterr().err
