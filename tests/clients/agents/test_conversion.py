"""A conversion for agents: here and on a server, whole even if whoever waits for it is
cancelled."""

import asyncio

import numpy as np
import pytest
from calling import noise
from converters import DelayConverter
from serving import gain_voice, served

from rtvc.clients.agents.conversion import Here, decoded, encoded, there
from rtvc.engine.backends.eager import TorchBackend
from rtvc.engine.streams.session import Session

RATE = 24_000


def session():
    return Session(TorchBackend(DelayConverter(), 600), gain_voice(0.5), sample_rate=RATE)


def conversions(url):
    return Here(session), there(url, "half", format="f32")(RATE)


async def ends_whole(conversion):
    """A last stream that lacks nothing."""
    x = noise(3_000, 3)
    y = np.concatenate([await conversion.push(x), await conversion.flush()])
    np.testing.assert_allclose(y, 0.5 * x, atol=1e-6)
    await conversion.close()


@pytest.mark.parametrize("which", [0, 1])
def test_streams_follow_each_other_and_no_sample_is_lost(tmp_path, which):
    async def main():
        async with served(tmp_path) as (_, url):
            conversion = conversions(url)[which]
            for seed in range(2):
                x, parts = noise(RATE, seed), []
                for at in range(0, len(x), 1_000):
                    parts.append(await conversion.push(x[at : at + 1_000]))
                parts.append(await conversion.flush())
                np.testing.assert_allclose(np.concatenate(parts), 0.5 * x, atol=1e-6)
            await conversion.push(noise(5_000, 2))
            await conversion.drop()
            await ends_whole(conversion)

    asyncio.run(main())


@pytest.mark.parametrize("which", [0, 1])
def test_who_is_cancelled_leaves_it_whole(tmp_path, which):
    async def main():
        async with served(tmp_path) as (_, url):
            conversion = conversions(url)[which]
            pushing = asyncio.create_task(conversion.push(noise(20 * RATE)))
            await asyncio.sleep(0)
            pushing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pushing
            await conversion.drop()
            await ends_whole(conversion)

    asyncio.run(main())


def test_frames_of_agents():
    both = np.array([100, 300, -50, 50], "<i2").tobytes()
    np.testing.assert_allclose(decoded(both, 2) * 32_768, [200, 0])
    assert len(decoded(b"", 2)) == 0
    assert np.frombuffer(encoded(np.float32([0.5, -0.5]), 2), "<i2").tolist() == [
        16_384,
        16_384,
        -16_384,
        -16_384,
    ]
