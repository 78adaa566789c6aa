"""A live server and its clients: sessions, resumption, slow clients, draining."""

import asyncio
import contextlib
import os
import signal
import time

import numpy as np
import pytest
from calling import Client, Refusal, noise, until
from serving import make_service, served
from websockets.exceptions import ConnectionClosed

from rtvc.engine.protocol.fields import Code
from rtvc.engine.protocol.messages import (
    Draining,
    Error,
    ListVoices,
    Ping,
    Pong,
    Stats,
    Update,
    Updated,
    VoiceList,
)
from rtvc.engine.server.app import run


def test_a_session_converts_every_sample(tmp_path):
    async def main():
        async with served(tmp_path) as (service, url), Client(url) as client:
            x = noise(30_000)
            for choice, gain in [("half", 0.5), ({"one": 1, "half": 1}, 0.75)]:
                client.audio.clear()
                started = await client.start(voice=choice)
                await client.speak(x)
                stopped = await client.stop()
                np.testing.assert_allclose(client.samples(), gain * x, atol=1e-6)
                assert client.audio[-1].end and started.latency_ms == 62.5
                assert (
                    stopped.samples_in == stopped.samples_out == 30_000 and stopped.dropped_ms == 0
                )
                assert stopped.frames_out == len(client.audio) and stopped.lag_p99_ms > 0
            assert not service.sessions and not service.pool.sessions

    asyncio.run(main())


@pytest.mark.parametrize(
    ("rate", "output", "format"), [(48_000, 16_000, "s16"), (44_100, None, "f32")]
)
def test_other_rates_and_formats(tmp_path, rate, output, format):
    async def main():
        async with served(tmp_path) as (_, url), Client(url) as client:
            await client.start(sample_rate=rate, output_rate=output, format=format)
            x = 0.5 * np.sin(np.arange(rate) * 2 * np.pi * 440 / rate).astype(np.float32)
            await client.speak(x, block=441, rate=rate)
            await client.stop()
            y = client.samples()
            at = np.arange(len(y)) / (output or rate)
            assert len(y) == (output or rate)
            np.testing.assert_allclose(
                y[2_000:-2_000], 0.5 * np.sin(2 * np.pi * 440 * at)[2_000:-2_000], atol=2e-3
            )

    asyncio.run(main())


def test_opus_both_ways(tmp_path):
    formats = pytest.importorskip("rtvc.engine.protocol.formats")
    if "opus" not in formats.offered():
        pytest.skip("libopus or opuslib is not installed")

    async def main():
        async with served(tmp_path) as (_, url), Client(url) as client:
            with pytest.raises(Refusal, match="Opus does not know 44100"):
                await client.start(sample_rate=44_100, format="opus")
            await client.start(sample_rate=48_000, output_rate=24_000, format="opus")
            x = 0.5 * np.sin(np.arange(48_000) * 2 * np.pi * 440 / 48_000).astype(np.float32)
            await client.speak(x, block=960, rate=48_000)
            await client.stop()
            y = client.samples()
            assert len(y) == 24_000 and {len(audio.samples) for audio in client.audio[:-1]} == {480}
            assert 0.3 < y[4_000:-4_000].std() < 0.4

    asyncio.run(main())


def test_timestamps_name_the_audio_in_the_frame(tmp_path):
    async def main():
        async with served(tmp_path) as (_, url), Client(url) as client:
            await client.start()
            await client.speak(noise(24_000), paced=True, began=(began := time.perf_counter()))
            await client.stop()
            starts = np.cumsum([0, *[len(audio.samples) for audio in client.audio]])[:-1] / 24_000
            stated = np.array([audio.timestamp / 1e6 for audio in client.audio]) - began
            assert (
                np.median(np.abs(stated - starts)) < 0.02
            )  # the model's own delay of 37.5 ms would show

    asyncio.run(main())


def test_updates_pings_stats_and_voices(tmp_path):
    async def main():
        async with served(tmp_path) as (_, url), Client(url) as client:
            await client.send(ListVoices().text())
            assert (await client.expect(VoiceList)).voices == ("half", "one")
            with pytest.raises(Refusal, match="unexpected"):
                await client.send('{"type":"stats"}')
                await client.expect(Stats)
            await client.start()
            await client.speak(np.full(6_000, 0.5, np.float32))
            await asyncio.sleep(0.2)
            await client.send(Update(voice="half", wet=1.0, pitch=0.0, prosody=0.5).text())
            updated = await client.expect(Updated)
            assert (updated.voice, updated.prosody) == ("half", 0.5)
            await client.speak(np.full(6_000, 0.5, np.float32))
            await asyncio.sleep(0.2)
            await client.send(Update(wet=0.0).text())
            assert (await client.expect(Updated)).wet == 0.0
            await client.speak(np.full(6_000, 0.5, np.float32))
            with pytest.raises(Refusal, match="unknown_voice"):
                await client.send(Update(voice="nobody").text())
                await client.expect(Updated)
            await client.send(Ping(id=7, time=1.5, received=2).text())
            pong = await client.expect(Pong)
            assert (pong.id, pong.time) == (7, 1.5)
            await client.send('{"type":"stats"}')
            stats = await client.expect(Stats)
            assert stats.samples_in == 18_000 and stats.frames_in == 39
            await client.stop()
            y = client.samples()
            levels = [y[at] for at in (3_000, 9_000, 17_000)]
            np.testing.assert_allclose(levels, [0.5, 0.25, 0.5], atol=1e-6)

    asyncio.run(main())


def test_a_fast_sender_is_slowed_down_and_loses_nothing(tmp_path):
    async def main():
        async with served(tmp_path, queue_s=0.5) as (service, url), Client(url) as client:
            await client.start()
            x, most = noise(24_000 * 30), 0.0
            speaking = asyncio.create_task(client.speak(x, block=2_400))
            while not speaking.done():
                most = max(
                    [
                        most,
                        *[
                            max(call.queued, call.waiting.seconds)
                            for call in service.sessions.values()
                        ],
                    ]
                )
                await asyncio.sleep(0.005)
            await client.stop()
            np.testing.assert_array_equal(client.samples(), x)
            assert most < 1.5

    asyncio.run(main())


def test_a_slow_reader_loses_its_oldest_audio_and_nobody_elses(tmp_path):
    async def main():
        async with served(tmp_path) as (service, url), Client(url) as slow, Client(url) as calm:
            x = noise(24_000 * 8)
            await slow.start(max_lag_ms=200, format="f32", output_rate=192_000)
            await calm.start()
            other = asyncio.create_task(calm.speak(x, paced=True))
            slow.socket.transport.pause_reading()
            began = time.perf_counter()
            speaking = asyncio.create_task(slow.speak(x, paced=True, began=began))
            call = next(call for call in service.sessions.values() if call.rate_out == 192_000)
            most = 0.0
            for _ in range(100):
                await asyncio.sleep(0.05)
                most = max(most, call.waiting.seconds)
            slow.socket.transport.resume_reading()
            await speaking
            stopped = await slow.stop()
            await other
            await calm.stop()
            np.testing.assert_array_equal(calm.samples(), x)
            assert most < 0.4  # what waits is bounded while nobody reads
            y = slow.samples()  # the sequence is unbroken
            assert any(audio.dropped for audio in slow.audio)
            assert stopped.dropped_ms > 500 and abs(len(y) / 192 + stopped.dropped_ms - 8_000) < 1
            assert slow.audio[-10].timestamp / 1e6 - began > 7.5

    asyncio.run(main())


def test_draining_lets_sessions_end_and_refuses_new_ones(tmp_path):
    async def main():
        async with (
            served(tmp_path, drain_s=5) as (service, url),
            Client(url) as busy,
            Client(url) as idle,
        ):
            await busy.start()
            draining = asyncio.create_task(service.drain())
            assert (await idle.expect(Draining)).seconds == 5
            assert (
                await idle.expect(Error)
            ).code is Code.DRAINING and await idle.messages.get() is None
            await busy.expect(Draining)
            async with Client(url) as late:
                with pytest.raises(Refusal, match="draining"):
                    await late.start()
            await busy.speak(noise(4_800))
            assert (await busy.stop()).samples_out == 4_800
            await asyncio.wait_for(draining, 2)
            assert (await busy.expect(Error)).code is Code.DRAINING

    asyncio.run(main())


def test_the_drain_ends_when_its_time_is_over(tmp_path):
    async def main():
        async with served(tmp_path, drain_s=0.3) as (service, url), Client(url) as client:
            await client.start()
            await asyncio.wait_for(service.drain(), 2)
            assert (await client.expect(Error)).code is Code.DRAINING

    asyncio.run(main())


def test_idle_clients_are_closed(tmp_path):
    async def main():
        async with served(tmp_path, idle_s=0.4, hello_s=0.3) as (_, url):
            from websockets.asyncio.client import connect

            async with connect(
                url, origin="http://127.0.0.1:" + url.split(":")[2].split("/")[0]
            ) as silent:
                assert '"idle"' in await asyncio.wait_for(silent.recv(), 2)
            async with Client(url) as client:
                assert (await client.expect(Error)).code is Code.IDLE

    asyncio.run(main())


def test_a_failing_pool_tells_its_clients(tmp_path):
    from converters import DelayConverter

    from rtvc.engine.backends.eager import TorchBackend

    class Broken(TorchBackend):
        def step(self, x, voice, state):
            raise RuntimeError("no more memory")

    async def main():
        async with (
            served(tmp_path, backend=Broken(DelayConverter(), 600)) as (service, url),
            Client(url) as client,
        ):
            await client.start()
            for second in range(5):
                with contextlib.suppress(ConnectionClosed):
                    await client.speak(noise(600, second), paced=True)
            assert (await client.expect(Error)).code is Code.INTERNAL
            await until(lambda: not service.sessions)
            count = service.metrics.registry.get_sample_value
            await until(lambda: count("rtvc_internal_errors_total") >= 3)

    asyncio.run(main())


def test_run_serves_until_it_is_told_to_stop(tmp_path):
    async def main():
        stop, address = asyncio.Event(), asyncio.get_running_loop().create_future()
        running = asyncio.create_task(
            run(make_service(tmp_path), "127.0.0.1", 0, ready=address.set_result, stop=stop)
        )
        async with Client(await address) as client:
            await client.start()
            await client.speak(noise(2_400))
            stop.set()
            await client.expect(Draining)
            assert (await client.stop()).samples_out == 2_400
            await asyncio.wait_for(running, 5)

    asyncio.run(main())


def test_a_second_signal_ends_it_at_once(tmp_path):
    async def main():
        address = asyncio.get_running_loop().create_future()
        running = asyncio.create_task(
            run(make_service(tmp_path), "127.0.0.1", 0, ready=address.set_result)
        )
        async with Client(await address) as client:
            await client.start()
            os.kill(os.getpid(), signal.SIGTERM)
            await client.expect(Draining)
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(running, 5)

    asyncio.run(main())
