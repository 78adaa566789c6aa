"""The Python client against a live server: streaming, resumption, bounded flow, refusals, and the
sides without `async`."""

import ast
import asyncio
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
from background import background
from calling import noise
from serving import gain_voice, served

import rtvc
from rtvc.clients.websocket import backpressure as flow_module
from rtvc.clients.websocket.backpressure import Window
from rtvc.clients.websocket.recording import named
from rtvc.engine.protocol.fields import Code
from rtvc.errors import AudioError, ServiceError
from tests.support.timed import run

F32 = {"format": "f32"}


def test_the_line_of_the_documentation(tmp_path):
    async def main():
        async with served(tmp_path) as (_, url):
            x = noise(30_000)
            async with rtvc.clients.connect(url, voice="half", **F32) as c:
                blocks = [block async for block in c.convert(np.array_split(x, 37))]
                np.testing.assert_allclose(np.concatenate(blocks), 0.5 * x, atol=1e-6)
                assert c.totals.samples_in == c.totals.samples_out == 30_000
                assert (
                    c.welcome.server == "test"
                    and c.latency == pytest.approx(0.0625)
                    and c.link.resumed == 0
                )

    run(main)


def test_the_example_of_the_documentation_runs(tmp_path):
    text = (Path(__file__).parents[3] / "docs" / "clients.md").read_text().split("**Python**")[1]
    example = textwrap.dedent(
        "\n".join(line for line in text[: text.index("\nor ")].splitlines()[1:])
    )
    x, heard = noise(24_000), []

    async def main():
        async with served(tmp_path) as (service, url):
            service.store.add("anna", gain_voice(0.25))
            code = compile(
                example.replace("ws://127.0.0.1:8765", url),
                "clients.md",
                "exec",
                flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
            )
            await eval(code, {"blocks": np.array_split(x, 10), "play": heard.append})

    run(main)
    assert (
        len(np.concatenate(heard)) == 24_000
        and np.abs(np.concatenate(heard)).max() < np.abs(x).max()
    )


def test_the_public_names_are_found_in_any_order_of_imports():
    import rtvc.clients.live.display
    from rtvc.clients import Remote, connect

    assert connect is rtvc.clients.connect and Remote is rtvc.clients.Remote
    for name in rtvc.CLIENTS:
        assert getattr(rtvc.clients, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'conect'"):
        _ = rtvc.clients.conect


def test_sending_and_iterating_apart_and_changing_the_voice_on_the_way(tmp_path):
    async def main():
        async with (
            served(tmp_path) as (_, url),
            rtvc.clients.connect(url, {"one": 1, "half": 1}, **F32) as c,
        ):
            x, heard = noise(48_000), []

            async def listen():
                async for audio in c.audio():
                    heard.append(audio)

            listener = asyncio.create_task(listen())
            await c.send(x[:24_000])
            assert (await c.stats()).samples_in <= 24_000 and await c.voices() == ("half", "one")
            while sum(len(audio.samples) for audio in heard) < 22_000:
                await asyncio.sleep(0.01)
            changed = await c.update(voice="one", wet=0.5)
            assert changed.voice == "one" and changed.wet == 0.5
            await c.send(x[24_000:], captured=5.0)
            totals = await c.finish()
            await listener
            y = np.concatenate([audio.samples for audio in heard])
            assert len(y) == totals.samples_out == 48_000
            np.testing.assert_allclose(y[:22_000], 0.75 * x[:22_000], atol=1e-6)
            np.testing.assert_allclose(y[27_000:], x[27_000:], atol=1e-6)  # equal, dry or wet
            assert heard[-2].timestamp > 5_000_000, "capture times are the caller's"
            second = await c.start("half", sample_rate=16_000, output_rate=24_000)
            assert second.sample_rate == 16_000
            assert len(np.concatenate([b async for b in c.convert([noise(16_000)])])) == 24_000

    run(main)


def test_a_sender_without_a_listener_waits_and_is_told_why(tmp_path, monkeypatch):
    async def main():
        async with (
            served(tmp_path) as (_, url),
            rtvc.clients.connect(url, "one", window=1.0, **F32) as c,
        ):
            monkeypatch.setattr(flow_module, "PATIENCE_S", 0.5)
            with pytest.raises(
                ServiceError, match="nobody takes them: iterate over the client while sending"
            ):
                await c.send(noise(24_000 * 30))
            assert c.flow.window.under_way <= 1.3 and c.flow.waiting <= 1.3

    run(main)


def test_a_server_that_sends_what_nobody_asked_for_is_left(tmp_path):
    async def main():
        async with (
            served(tmp_path) as (_, url),
            rtvc.clients.connect(url, "one", window=0.5, **F32) as c,
        ):
            from rtvc.engine.protocol.streams import Audio

            for index in range(200):
                c.flow.hear(Audio(np.zeros(2_400, np.float32), 0, index, False, False))
            assert "nobody asked for" in str(c.problem)
            with pytest.raises(ServiceError, match="nobody asked for"):
                await c.send(noise(480))

    run(main)


def test_errors_of_the_source_reach_the_caller(tmp_path):
    async def blocks():
        yield noise(4_800)
        raise KeyError("the file ended early")

    async def main():
        async with served(tmp_path) as (_, url), rtvc.clients.connect(url, "one", **F32) as c:
            with pytest.raises(KeyError, match="ended early"):
                async for _ in c.convert(blocks()):
                    pass

    run(main)


def test_recordings_become_voices(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "Anna Ü.wav", noise(48_000), 24_000)

    async def main():
        async with served(tmp_path / "voices") as (_, url), rtvc.clients.connect(url) as c:
            name, data = named(tmp_path / "Anna Ü.wav")
            assert name.startswith("Anna-") and len(data) > 48_000
            assert (await c.voice_of(tmp_path / "Anna Ü.wav"))[
                0
            ] == name and name in await c.voices()
            assert (await c.voice_of(tmp_path / "Anna Ü.wav")) == (name, 10.0), (
                "the same recording is not sent twice"
            )
            made = await c.upload(data, "bert")
            assert made.name == "bert" and made.seconds == 2.0
            with pytest.raises(rtvc.clients.Refusal, match="already") as caught:
                await c.upload(data, "bert")
            assert caught.value.code is Code.NAME_TAKEN and caught.value.advice
            with pytest.raises(rtvc.clients.Refusal, match="cannot be used"):
                await c.upload(b"this is no audio at all" * 100, "carl")
            await c.start(name)
            assert len(np.concatenate([b async for b in c.convert([noise(4_800)])])) == 4_800
        with pytest.raises(AudioError, match=r"nowhere\.wav cannot be read"):
            named("nowhere.wav")
        with pytest.raises(AudioError, match="empty recording"):
            named(b"")

    run(main)


def test_the_window_counts_what_is_under_way():
    window = Window(1.0)
    for index in range(10):
        window.sent(index * 100_000, 0.1)
    assert window.full and window.under_way == pytest.approx(1.0)
    window.taken(0, 0.25)
    assert not window.full and window.under_way == pytest.approx(0.8)
    window.taken(700_000, 0.1)  # what lay before was dropped by the server
    assert window.under_way == pytest.approx(0.2)
    window.taken(5_000_000, 0.1)
    assert window.under_way == 0.0


def test_a_session_without_async(tmp_path):
    before = threading.active_count()
    x, random = noise(40_000), np.random.default_rng(1)
    with background(tmp_path) as (_, url):
        with rtvc.clients.Remote(url, "half", window=0.5, **F32) as remote:
            parts, at = [], 0
            while at < len(x):
                size = int(random.integers(1, 30_000))
                parts.append(remote.push(x[at : at + size]))
                at += size
            remote.update(pitch=0.0)
            parts.append(remote.flush())
            np.testing.assert_allclose(np.concatenate(parts), 0.5 * x, atol=1e-6)
            assert (
                remote.totals.samples_in == 40_000
                and remote.voices() == ("half", "one")
                and remote.latency > 0
            )
            remote.start("one", format="s16")
            assert len(remote.push(x[:100])) + len(remote.flush()) == 100
        np.testing.assert_allclose(
            rtvc.clients.convert(url, x, 24_000, {"one": 1, "half": 3}, **F32), 0.625 * x, atol=1e-6
        )
        with pytest.raises(rtvc.clients.Refusal):
            rtvc.clients.Remote(url, "nobody")
        with pytest.raises(AudioError, match="floats"):
            rtvc.clients.convert(url, np.zeros(100, np.int16), 24_000, "one")
    assert threading.active_count() == before


def test_opus_on_the_wire(tmp_path):
    from rtvc.engine.protocol.formats import offered

    if "opus" not in offered():
        pytest.skip("libopus or opuslib is not installed")

    async def main():
        async with (
            served(tmp_path) as (_, url),
            rtvc.clients.connect(url, "half", sample_rate=48_000, format="opus") as c,
        ):
            x = 0.5 * np.sin(np.arange(48_100) * 2 * np.pi * 440 / 48_000).astype(np.float32)
            y = np.concatenate([block async for block in c.convert(np.array_split(x, 77))])
            assert 48_100 <= len(y) < 48_100 + 2 * 960
            assert np.abs(y[9_600:38_400]).max() == pytest.approx(0.25, abs=0.05)

    run(main)
