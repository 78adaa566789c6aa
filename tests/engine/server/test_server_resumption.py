"""A lost connection, a session taken over, and who cannot resume."""

import asyncio
import time

import numpy as np
import pytest
from calling import Client, Refusal, noise, until
from serving import served

from rtvc.engine.protocol.fields import Code
from rtvc.engine.protocol.messages import Error, Resumed, Start
from rtvc.engine.server.service import Service


def test_a_lost_connection_is_resumed_without_losing_a_sample(tmp_path):
    async def main():
        async with served(tmp_path) as (service, url), Client(url) as client:
            x = noise(48_000)
            await client.start()
            await client.speak(x[:20_000])
            await asyncio.sleep(0.1)
            client.lose()
            client.side.audio(x[20_000:20_480], 0)  # numbered and kept, never sent
            await until(lambda: [call.listener for call in service.sessions.values()] == [None])
            await client.resume()
            await client.speak(x[20_480:30_000])
            client.lose()
            client.side.stop()
            client.side.stopping = False
            await client.resume()
            await client.speak(x[30_000:])
            await client.stop()
            np.testing.assert_array_equal(client.samples(), x)
            assert (
                len(
                    service.metrics.registry.get_sample_value(
                        "rtvc_sessions_resumed_total"
                    ).__str__()
                )
                and not service.sessions
            )

    asyncio.run(main())


def test_a_second_connection_takes_the_session_over(tmp_path):
    async def main():
        async with served(tmp_path) as (_, url), Client(url) as client:
            x = noise(24_000)
            await client.start()
            await client.speak(x[:12_000])
            first = client.messages
            old_reader = client.reader
            await client.resume()
            await client.speak(x[12_000:])
            await client.stop()
            await old_reader
            while not isinstance(error := await first.get(), Error):
                pass  # what the old connection still brought
            assert error.code is Code.SUPERSEDED
            np.testing.assert_array_equal(client.samples(), x)

    asyncio.run(main())


def test_who_cannot_resume_is_told_why(tmp_path):
    async def main():
        async with served(tmp_path, resume_s=0.4) as (service, url), Client(url) as client:
            await client.start()
            client.lose()
            session = client.side.started
            client.side.started = session.model_copy(update={"key": type(session.key)("wrong")})
            with pytest.raises(Refusal, match="unknown_session"):
                await client.resume()
            client.side.started = session
            client.side.incoming.expected = 1_000
            with pytest.raises(Refusal, match="too_late"):
                await client.resume()
            client.side.incoming.expected = 0
            await asyncio.sleep(1.0)
            assert not service.sessions and not service.pool.sessions
            with pytest.raises(Refusal, match="unknown_session"):
                await client.resume()

    asyncio.run(main())


def test_resumed_names_the_next_frame(tmp_path):
    async def main():
        async with served(tmp_path) as (_, url), Client(url) as client:
            await client.start()
            await client.speak(noise(4_800))
            await asyncio.sleep(0.1)
            client.lose()
            await client.connect()
            await client.send(client.side.resume())
            assert (await client.expect(Resumed)).wanted == 10

    asyncio.run(main())


def test_a_session_is_not_swept_away_while_it_is_made(tmp_path):
    class Stuttering(Service):
        async def _start(self, start):
            call = await super()._start(start)
            time.sleep(0.6)  # the whole loop stands still
            return call

    async def main():
        async with (
            served(tmp_path, kind=Stuttering, resume_s=0.1) as (_, url),
            Client(url) as client,
        ):
            await client.start()
            await client.speak(noise(2_400))
            assert (await client.stop()).samples_out == 2_400

    asyncio.run(main())


def test_a_session_whose_client_left_while_it_was_made_is_given_back(tmp_path):
    class Slow(Service):
        async def _start(self, start):
            call = await super()._start(start)
            await asyncio.sleep(0.3)
            return call

    async def main():
        async with (
            served(tmp_path, kind=Slow, resume_s=0.2) as (service, url),
            Client(url) as client,
        ):
            await client.send(client.side.start(Start(sample_rate=24_000, voice="one")))
            await asyncio.sleep(0.1)
            client.lose()
            assert len(service.pool.sessions) == 1
            await asyncio.sleep(1.2)
            assert not service.pool.sessions and not service.sessions

    asyncio.run(main())
