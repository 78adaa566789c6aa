"""What clients claim of time, what the server measures itself, and whom a late one delays."""

import asyncio
import time

import numpy as np
import pytest
from calling import Client, noise
from serving import gain_voice, served

from rtvc.engine.protocol.client_clock import AHEAD_S, Arrivals
from rtvc.engine.streams.pool import Pool

A, B = "10.0.0.1", "10.0.0.2"


@pytest.mark.parametrize("claim", [-600.0, 600.0, 1e9])
def test_what_clients_claim_of_time_does_not_reach_the_operators_numbers(tmp_path, claim):
    async def main():
        async with served(tmp_path) as (server, url), Client(url) as client:
            await client.start()
            x, began = noise(24_000), time.perf_counter()
            for at in range(0, len(x), 480):
                await asyncio.sleep(max(0.0, began + (at + 480) / 24_000 - time.perf_counter()))
                claimed = began + at / 24_000 + 1e6 + (claim if at % 960 else 0.0)
                await client.send(client.side.audio(x[at : at + 480], round(1e6 * claimed)))
            await client.stop()
            value = server.metrics.registry.get_sample_value
            count, total = value("rtvc_lag_seconds_count"), value("rtvc_lag_seconds_sum")
            assert (
                count > 20 and 0 <= total / count < 1.0
            )  # on a busy machine; claimed were at least 10 s
            assert value("rtvc_lag_seconds_bucket", {"le": "5.0"}) == count

    asyncio.run(main())


def test_who_claims_to_be_late_is_neither_first_nor_counted(tmp_path):
    from converters import DelayConverter
    from pooling import OneByOne

    from rtvc.engine.streams.capacity import Capacity

    single = OneByOne(DelayConverter(), 600)
    pool = Pool(single, slots=3, capacity=Capacity(0.025, {}, 3), clock=lambda: 100.0)
    honest, forger = (pool.join(gain_voice(1.0)) for _ in range(2))
    honest.push(np.full(600, 0.1, np.float32), captured=99.975, arrived=100.0)
    forger.push(np.full(600, 0.2, np.float32), captured=90.0, arrived=100.0)
    pool.tick()
    assert single.order == pytest.approx([0.1, 0.2])  # as they came
    assert honest.late == forger.late == 0


def test_age_by_arrivals_alone():
    arrivals = Arrivals(24_000)
    assert arrivals.age(0, 1.0) is None
    arrivals.arrived(0, 480, 1.0)
    arrivals.arrived(480, 480, 1.02)
    assert arrivals.age(0, 1.1) == pytest.approx(0.12) and arrivals.age(240, 1.1) == pytest.approx(
        0.11
    )
    assert arrivals.age(480, 1.1) == pytest.approx(0.1) and arrivals.age(900, 0.5) == 0.0
    for index in range(2, 2 + int((AHEAD_S + 0.1) / 0.02)):  # a file, sent as fast as it goes
        arrivals.arrived(480 * index, 480, 1.03)
    assert arrivals.age(960, 1.1) is None
    arrivals.arrived(480 * 60, 480, 5.0)
    assert arrivals.age(480 * 60, 5.1) == pytest.approx(0.12)


def test_a_reader_that_is_slow_spoils_its_own_lag_only(tmp_path):
    async def main():
        async with served(tmp_path) as (server, url), Client(url) as slow:
            await slow.start(output_rate=192_000, max_lag_ms=5_000)
            slow.socket.transport.pause_reading()
            speaking = asyncio.create_task(slow.speak(noise(24_000 * 4), paced=True))
            await asyncio.sleep(3.0)
            slow.socket.transport.resume_reading()
            await speaking
            stopped = await slow.stop()
            value = server.metrics.registry.get_sample_value
            assert stopped.lag_p99_ms > 1_000
            assert (
                value("rtvc_lag_seconds_count") - value("rtvc_lag_seconds_bucket", {"le": "1.0"})
                <= 1
            )

    asyncio.run(main())
