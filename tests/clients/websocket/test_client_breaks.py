"""Connections of the Python client that break, fall silent or stay away."""

import asyncio
import time
from contextlib import asynccontextmanager

import numpy as np
import pytest
from background import Route
from calling import noise
from serving import served

import rtvc
from rtvc.engine.protocol.fields import Code
from rtvc.errors import ServiceError
from tests.support.timed import run

F32 = {"format": "f32"}


@asynccontextmanager
async def routed(folder, voice="one", **limits):
    """A service, the way to it, and a client on that way."""
    async with (
        served(folder, **limits) as (service, url),
        Route(url) as route,
        rtvc.clients.connect(route.url, voice, **F32) as client,
    ):
        yield service, route, client


def test_connections_that_break_lose_nothing(tmp_path):
    async def main():
        async with served(tmp_path) as (service, url), Route(url) as route:
            x = noise(24_000 * 12)
            route.cuts = [200_000, 450_000, 451_000, 900_000]
            async with rtvc.clients.connect(route.url, voice="half", window=2.0, **F32) as c:
                y = np.concatenate([block async for block in c.convert(np.array_split(x, 600))])
                np.testing.assert_allclose(y, 0.5 * x, atol=1e-6)
                assert c.link.resumed >= 3 and not route.cuts
            assert not service.sessions

    run(main)


def test_a_path_that_falls_silent_is_left_for_another(tmp_path, monkeypatch):
    from rtvc.clients.websocket import dial

    monkeypatch.setattr(dial, "BEAT_S", 0.2)

    async def main():
        async with routed(tmp_path, "half") as (_, route, c):
            x = noise(48_000)
            await c.send(x[:24_000])
            route.stalled = True
            await c.send(x[24_000:])
            while c.link.up.is_set():  # nobody closed anything: the client noticed by itself
                await asyncio.sleep(0.02)
            route.stalled = False
            await c.finish()
            np.testing.assert_allclose(np.concatenate([b async for b in c]), 0.5 * x, atol=1e-6)
            assert c.link.resumed == 1

    run(main)


def test_a_question_and_the_end_survive_a_break(tmp_path):
    async def main():
        async with routed(tmp_path) as (_, route, c):
            x = noise(24_000)
            await c.send(x[:12_000])
            route.open = False
            route.cut()
            await asyncio.sleep(0.1)
            await c.send(x[12_000:])  # nobody is there: the resumption sends it, in order
            question, end = asyncio.create_task(c.stats()), asyncio.create_task(c.finish())
            await asyncio.sleep(0.3)
            assert not question.done()
            route.open = True
            assert (await question).type == "stats" and (await end).samples_in == 24_000
            np.testing.assert_allclose(np.concatenate([b async for b in c]), x, atol=1e-6)

    run(main)


def test_a_connection_that_stays_away_ends_with_a_clear_error(tmp_path):
    async def main():
        async with routed(tmp_path, resume_s=0.8) as (_, route, c):
            await c.send(noise(4_800))
            route.open = False
            route.cut()
            began = time.monotonic()
            with pytest.raises(ServiceError, match=r"not found again within 0\.8 s"):
                async for _ in c:
                    pass
            assert time.monotonic() - began < 5
            with pytest.raises(ServiceError, match="not found again"):
                await c.send(noise(480))
            with pytest.raises(ServiceError, match="not found again"):
                await c.stats()

    run(main)


def test_a_session_that_is_gone_when_its_client_returns(tmp_path):
    async def main():
        async with routed(tmp_path) as (service, route, c):
            await c.send(noise(480))
            route.open = False
            route.cut()
            await asyncio.sleep(0.3)
            for call in list(service.sessions.values()):
                await service.end(call)
            route.open = True
            with pytest.raises(rtvc.clients.Refusal, match="no such session") as caught:
                async for _ in c:
                    pass
            assert caught.value.code is Code.UNKNOWN_SESSION

    run(main)


def test_live_audio_is_left_out_while_there_is_no_connection(tmp_path):
    async def main():
        async with routed(tmp_path) as (_, route, c):
            x = noise(24_000)
            assert await c.offer(x[:4_800], 1.0)
            route.open = False
            route.cut()
            while c.link.up.is_set():
                await asyncio.sleep(0.01)
            assert not await c.offer(x[4_800:9_600], 1.2)
            route.open = True
            await c.link.up.wait()
            assert await c.offer(x[9_600:], 1.4)
            await c.finish()
            heard = c.flow.ready()
            assert c.dropped == pytest.approx(0.2) and c.link.resumed == 1
            np.testing.assert_allclose(
                np.concatenate([a.samples for a in heard]),
                np.concatenate([x[:4_800], x[9_600:]]),
                atol=1e-6,
            )

    run(main)
