"""The end of a session survives a path that breaks there: what was sent counts only once the client
has said that it is here."""

import asyncio

import numpy as np
import pytest
from background import Route
from calling import Client, noise
from serving import served

import rtvc
from rtvc.engine.protocol.client_side import ClientSide
from rtvc.engine.protocol.fields import Code
from rtvc.engine.protocol.messages import FROM_CLIENT, Error, Ping, Resumed, Start, Stopped
from rtvc.engine.protocol.streams import Outgoing

F32 = {"sample_rate": 24_000, "format": "f32"}


def run(work, seconds=60):
    asyncio.run(asyncio.wait_for(work(), seconds))


async def settled(service):
    """Waits until no session is kept any more."""
    async with asyncio.timeout(120):
        while service.ended or service.sessions:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("after", "silence"), [(0.0, 1.0), (0.0, 0.0), (0.02, 0.3), (0.1, 0.3), (0.3, 0.1)]
)
def test_a_path_cut_at_the_end_costs_no_sample(tmp_path, after, silence):
    async def main():
        async with served(tmp_path) as (service, url), Route(url) as route:
            async with rtvc.clients.connect(route.url, "half", **F32) as c:
                x = noise(72_000)
                await c.send(x)
                finishing = asyncio.create_task(c.finish())
                await asyncio.sleep(after)
                route.stalled = True
                await asyncio.sleep(silence)
                route.cut()
                route.stalled = False
                totals = await finishing
                np.testing.assert_allclose(np.concatenate([b async for b in c]), 0.5 * x, atol=1e-6)
                assert totals.samples_in == totals.samples_out == 72_000
                await settled(service)
            assert not service.pool.sessions

    run(main)


@pytest.mark.parametrize("lost", range(1, 8))
def test_whichever_of_the_last_frames_is_lost_it_comes_again(tmp_path, lost):
    """The client hears nothing of the last frames and of `stopped`, as if they were in a buffer
    when the path broke."""

    async def main():
        async with served(tmp_path) as (service, url), Client(url) as client:
            x = noise(24_000)
            await client.start()
            await client.speak(x)
            side = client.side
            session = side.started, side.outgoing, side.incoming
            stopped = await client.stop()
            frames = stopped.frames_out
            assert (
                not service.pool.sessions and len(service.ended) == 1
            )  # its place is free, its output is kept
            side.started, side.outgoing, side.incoming = session
            side.incoming.expected, side.incoming.ended = max(0, frames + 1 - lost), False
            del client.audio[max(0, frames + 1 - lost) :]
            client.lose()
            await client.connect()
            await client.send(side.resume())
            resumed = await client.expect(Resumed)
            for frame in side.again(resumed):
                await client.send(frame)
            again = await client.expect(Stopped)
            np.testing.assert_array_equal(client.samples(), x)
            assert again == stopped and client.audio[-1].end

    run(main)


def test_a_finished_session_is_forgotten_when_its_client_has_it_leaves_or_begins_another(tmp_path):
    async def main():
        async with served(tmp_path, resume_s=0.5) as (service, url):
            for way in ("acknowledges", "leaves", "begins another", "stays away"):
                client = Client(url)
                client.side = ClientSide("test", ("acknowledge",))
                await client.connect()
                await client.start()
                await client.speak(noise(4_800))
                frames = (await client.stop()).frames_out
                assert len(service.ended) == 1
                await client.send(Ping(received=frames - 1).text())
                await asyncio.sleep(0.05)
                assert len(service.ended) == 1  # the last frame may be on its way
                if way == "acknowledges":
                    await client.send(client.side.acknowledgement())
                elif way == "begins another":
                    await client.start()
                    assert not service.ended
                    await client.stop()
                    await client.close()
                elif way == "leaves":
                    await client.close()
                else:
                    client.lose()
                    await asyncio.sleep(0.1)
                    assert len(service.ended) == 1  # it may come back
                await settled(service)
                client.lose()

    run(main)


def test_finished_sessions_are_bounded(tmp_path):
    async def main():
        async with served(tmp_path, sessions=2) as (service, url):
            for _ in range(5):
                client = Client(url)
                await client.connect()
                await client.start()
                await client.speak(noise(2_400))
                await client.stop()
                client.lose()
            assert len(service.ended) == 2

    run(main)


def test_going_down_waits_for_the_last_acknowledgement(tmp_path):
    async def main():
        settings = {"drain_s": 10.0}
        async with (
            served(tmp_path, **settings) as (service, url),
            Route(url) as route,
            rtvc.clients.connect(route.url, "one", **F32) as c,
        ):
            await c.send(noise(24_000))
            finishing = asyncio.create_task(c.finish())
            route.stalled = True
            await asyncio.sleep(0.5)
            draining = asyncio.create_task(service.drain())
            await asyncio.sleep(0.5)
            assert not draining.done()
            route.cut()
            route.stalled = False
            assert (await finishing).samples_out == 24_000
            await asyncio.wait_for(draining, 3)

    run(main)


def test_who_broke_the_rules_after_the_end_is_not_waited_for(tmp_path):
    async def main():
        async with served(tmp_path) as (service, url), Client(url) as client:
            await client.start()
            await client.speak(noise(2_400))
            await client.stop()
            await client.send(b"\x07" * 40)
            assert (await client.expect(Error)).code is Code.BAD_FRAME
            await settled(service)

    run(main)


def test_a_client_says_what_it_has_and_the_last_frame_only_after_stopped():
    client, back = ClientSide("test", ("acknowledge",)), Outgoing("f32", 24_000)

    def received(text):
        return None if text is None else FROM_CLIENT.validate_json(text).received

    client.start(Start(sample_rate=24_000, format="f32", voice="one"))
    client.receive(
        '{"type":"started","session":"s","key":"k","sample_rate":24000,"output_rate":24000,"format":"f32","voice":"one","latency_ms":1}'
    )
    client.receive(back.frame(noise(23_000), 0))
    assert client.acknowledgement() is None and received(client.acknowledgement(always=True)) == 1
    for _ in range(3):
        client.receive(back.frame(noise(20_000), 0))
    assert received(client.acknowledgement()) == 4  # two seconds have come
    client.receive(back.frame(noise(100), 0, end=True))
    assert received(client.acknowledgement(always=True)) == 4
    client.receive(Stopped(frames_out=5).text())
    assert received(client.acknowledgement()) == 5 and client.acknowledgement(always=True) is None


def test_what_is_not_acknowledged_is_kept_beyond_the_usual_seconds_and_bounded():
    kept = Outgoing("f32", 24_000, 1.0)
    kept.limit = 400_000
    for _ in range(40):
        kept.frame(noise(2_400), 0)
    assert kept.first == 0 and not kept.acknowledged
    for _ in range(40):
        kept.frame(noise(2_400), 0)
    assert sum(len(data) for data in kept.again(kept.first)) <= 400_000 and kept.first > 30
    kept.forget(80)
    assert kept.acknowledged and kept.first == 80
