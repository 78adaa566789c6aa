"""Bounded lag behind bad networks, the end of a stream in its last frame, silence, the client's
clock."""

import asyncio
import time

import numpy as np
import pytest
from calling import Client, Refusal, noise
from serving import served

from rtvc.engine.protocol.client_clock import ClientClock
from rtvc.engine.protocol.frames import HEADER, Flag
from rtvc.engine.protocol.messages import Stopped


def test_a_burst_after_a_stall_is_dropped_and_the_lag_is_nominal_again(tmp_path):
    class Timed(Client):
        def heard(self, audio):
            self.arrivals.append((time.perf_counter(), audio))

    async def main():
        async with served(tmp_path) as (_, url), Timed(url) as client:
            client.arrivals = []
            await client.start(max_lag_ms=400)
            x, began = noise(24_000 * 4), time.perf_counter()
            await client.speak(x[:24_000], paced=True, began=began)
            await asyncio.sleep(1.5)  # the sender's network stalls; its microphone does not
            await client.speak(x[24_000:], paced=True, began=began + 1.0)
            stopped = await client.stop()
            y = client.samples()
            assert (
                1_000 < stopped.dropped_ms < 2_000
                and abs(len(y) / 24 + stopped.dropped_ms - 4_000) < 1
            )
            late = [
                now - audio.timestamp / 1e6 for now, audio in client.arrivals if now > began + 3.2
            ]
            assert (
                len(late) > 10 and np.median(late) < 0.3
            )  # it would be 1.5 if nothing were dropped; 62.5 ms are the model's own
            assert sum(audio.dropped for audio in client.audio) >= 1
            np.testing.assert_array_equal(y[:20_000], x[:20_000])
            np.testing.assert_array_equal(y[-12_000:], x[-12_000:])

    asyncio.run(main())


def test_the_end_may_come_with_the_last_frame(tmp_path):
    async def main():
        async with served(tmp_path) as (_, url), Client(url) as client:
            x = noise(4_801)
            await client.start(format="f32")
            await client.speak(x[:4_800])
            await client.send(client.side.outgoing.frame(x[4_800:], 0, end=True))
            assert (await client.expect(Stopped)).samples_out == 4_801
            np.testing.assert_array_equal(client.samples(), x)

    asyncio.run(main())


def test_a_gated_session_answers_silence_with_silent_frames(tmp_path):
    pytest.importorskip("silero_vad")
    pytest.importorskip("onnxruntime")

    async def main():
        async with served(tmp_path) as (service, url), Client(url) as client:
            sizes, receive = [], client.side.receive

            def listen(data):
                if isinstance(data, bytes):
                    sizes.append((Flag(HEADER.unpack_from(data)[1]), len(data)))
                return receive(data)

            client.side.receive = listen
            await client.start(gate=True)
            await client.speak(np.zeros(24_000, np.float32))
            assert (await client.stop()).samples_out == 24_000
            assert all(flags & Flag.SILENCE and size == 20 for flags, size in sizes)
            assert service.pool.times.count == 0 and not client.samples().any()

    asyncio.run(main())


def test_a_session_without_audio_ends_at_once(tmp_path):
    async def main():
        async with served(tmp_path) as (_, url), Client(url) as client:
            await client.start()
            stopped = await client.stop()
            assert (stopped.samples_out, stopped.frames_out, client.audio[0].end) == (0, 1, True)
            with pytest.raises(Refusal, match="unknown_voice"):
                await client.start(voice={"one": 0.0})

    asyncio.run(main())


def test_the_clients_clock_is_followed():
    clock, rng = ClientClock(), np.random.default_rng(0)
    ahead, drift = (
        1_000.0,
        1 + 1e-4,
    )  # the client's clock shows another time and is a tenth of a per mille slow
    for index in range(20_000):  # 400 seconds
        captured = index * 0.02
        jitter = 0.5 if 5_000 < index < 5_050 else 0.03 * rng.random()
        found = clock.arrived((captured + ahead) / drift, 0.02, captured + 0.02 + jitter)
        assert -0.002 < found - captured < 0.032
        assert abs(clock.back(found) / 1e6 - (captured + ahead) / drift) < 0.05
    assert ClientClock().back(-5.0) == 0 and ClientClock().offset == 0.0


def test_lying_timestamps_move_a_frame_ten_seconds_at_most():
    clock = ClientClock()
    clock.arrived(0.0, 0.02, 100.0)
    for timestamp in (0.0, 2**63 / 1e6, 5.0):
        assert 90 <= clock.arrived(timestamp, 0.02, 101.0) + 0.02 <= 101.0 + 1e-6
