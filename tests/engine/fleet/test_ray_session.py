"""Sessions that move between replicas, in one process and without Ray: what a crash, a move and a
shutdown do to the audio."""

import asyncio

import numpy as np
import pytest
from calling import Client, Refusal, noise

import rtvc
from rtvc.engine.fleet.vault import Vault
from rtvc.engine.protocol.fields import Code
from rtvc.engine.protocol.messages import Update, Updated
from tests.support.replicas import Hand, go, heard, replica
from tests.support.timed import run


@pytest.mark.parametrize(
    ("rate", "output", "format", "gate"),
    [(24_000, None, "f32", False), (44_100, 48_000, "f32", False), (16_000, None, "s16", True)],
)
def test_a_replica_that_dies_costs_no_sample(tmp_path, rate, output, format, gate):
    if gate:
        pytest.importorskip("onnxruntime")
        pytest.importorskip("silero_vad")

    async def main():
        vault, x = Vault(), noise(3 * rate, 3)
        settings = {"sample_rate": rate, "output_rate": output, "format": format, "gate": gate}
        whole = None
        async with (
            replica(tmp_path, "a", vault) as a,
            replica(tmp_path, "b", vault, every=0.1) as b,
            Client(a.url) as client,
        ):
            await client.start(**settings)
            await client.speak(x, rate=rate)
            await client.stop()
            whole = client.samples()
            client.audio.clear()
            started = await client.start(**settings)
            await client.speak(x[:rate], rate=rate)
            await heard(client, (output or rate) // 2)
            a.reach.broken = True  # as if it was gone: what it says now reaches nobody
            await client.speak(x[rate : 2 * rate], rate=rate)
            await heard(client, 3 * (output or rate) // 2)
            client.lose()
            go(client, b)
            ahead = client.side.incoming.expected
            await client.resume()
            await client.speak(x[2 * rate :], rate=rate)
            stopped = await client.stop()
            y = client.samples()
            assert (
                len(y) == len(whole) == stopped.samples_out
                and stopped.dropped_ms == 0
                and client.audio[-1].end
            )
            np.testing.assert_array_equal(y, whole)
            assert stopped.frames_out == len(
                client.audio
            ) > ahead > 0 and stopped.samples_in == len(x)
            assert started.session in a.sessions and not b.sessions, "nobody told the dead one"

    run(main)


@pytest.mark.parametrize(
    "moment", ["before any audio", "before the first save", "after stop", "when all has come"]
)
def test_dying_at_awkward_moments(tmp_path, moment):
    async def main():
        vault, x = Vault(), noise(36_100)
        async with (
            replica(tmp_path, "a", vault, every=60) as a,
            replica(tmp_path, "b", vault) as b,
            Client(a.url) as client,
        ):
            await client.start(voice="half")
            if moment == "before any audio":
                a.reach.broken = True
            if moment != "before any audio":
                await client.speak(x[:24_000])
                await heard(client, 20_000)
            a.reach.broken = moment != "after stop"
            if moment in ("before any audio", "before the first save"):
                client.lose()
                go(client, b)
                await client.resume()
                await client.speak(x[0 if moment == "before any audio" else 24_000 :])
            else:
                await client.speak(x[24_000:])
                await client.send(client.side.stop())
                side = client.side
                known = side.started, side.incoming, side.outgoing
                if moment == "when all has come":
                    await finish(client)
                a.reach.broken = True
                client.lose()
                side.started, side.incoming, side.outgoing = known  # as if `stopped` had been lost
                go(client, b)
                await client.resume()
            stopped = await finish(client)
            np.testing.assert_allclose(client.samples(), 0.5 * x, atol=1e-6)
            assert client.audio[-1].end and stopped.samples_in == stopped.samples_out == 36_100
            assert not b.sessions and not b.pool.sessions

    run(main)


async def finish(client):
    """`stopped`, after `stop` unless that was sent already."""
    from rtvc.engine.protocol.messages import Stopped

    if not client.side.stopping:
        return await client.stop()
    return await client.expect(Stopped)


def test_a_session_moves_while_its_owner_lives(tmp_path):
    async def main():
        vault, x = Vault(), noise(72_000)
        async with (
            replica(tmp_path, "a", vault, every=60) as a,
            replica(tmp_path, "b", vault) as b,
            Client(a.url) as client,
        ):
            started = await client.start()
            await client.speak(x[:24_000])
            await client.send(Update(voice="half", wet=1.0).text())
            await client.expect(Updated)
            await client.speak(x[24_000:48_000])
            await heard(client, 40_000)
            client.lose()
            go(client, b)
            await client.resume()
            assert started.session in b.sessions and not a.sessions and not a.pool.sessions
            await client.speak(x[48_000:])
            await client.stop()
            y = client.samples()
            assert len(y) == 72_000
            np.testing.assert_allclose(y[26_000:], 0.5 * x[26_000:], atol=1e-6)
            assert not vault.sessions and vault.bytes == 0

    run(main)


def test_going_down_hands_over_and_the_python_client_does_not_notice(tmp_path, caplog):
    from background import Route

    async def main():
        vault, x = Vault(), noise(24_000 * 3)
        async with (
            replica(tmp_path, "a", vault) as a,
            replica(tmp_path, "b", vault) as b,
            Route(a.url) as route,
        ):
            async with rtvc.clients.connect(route.url, voice="half", format="f32", window=1.0) as c:
                parts = []

                async def blocks():
                    for index, block in enumerate(np.array_split(x, 100)):
                        if index == 50:
                            route.port = b.port
                            await a.hand_over()
                            assert not a.sessions and not a.ready
                        yield block
                        await asyncio.sleep(0.005)

                async for part in c.convert(blocks()):
                    parts.append(part)
                np.testing.assert_allclose(np.concatenate(parts), 0.5 * x, atol=1e-6)
                assert c.link.resumed == 1 and c.totals.samples_out == len(x)
            with pytest.raises(Refusal) as caught:
                async with Client(a.url) as late:
                    await late.start()
            assert caught.value.args[0].code is Code.DRAINING

    run(main)


def test_live_audio_loses_what_is_stale_and_says_so(tmp_path):
    """Saved at second 2, crashed at 2.2, back at 3: what was older than 0.3 s then is lost."""
    block, saved, lost, back, limit = 600, 48_000, 52_800, 72_000, 0.3

    async def live(client, clock, x, start, stop):
        """Blocks at the pace of a microphone, each answered before the next."""
        for at in range(start, stop, block):
            clock.now = 1_000.0 + (at + block) / 24_000
            before = sum(len(audio.samples) for audio in client.audio)
            await captured(client, x, at)
            await heard(client, before + (block if at >= 900 else 0))

    async def captured(client, x, at):
        moment = round(1e6 * (1_000.0 + at / 24_000))
        await client.send(client.side.audio(x[at : at + block], moment))

    async def main():
        vault, x, clock = Vault(), noise(24_000 * 4), Hand()
        settings = {"every": 60, "clock": clock}
        async with (
            replica(tmp_path, "a", vault, **settings) as a,
            replica(tmp_path, "b", vault, **settings) as b,
            Client(a.url) as client,
        ):
            started = await client.start(max_lag_ms=1_000 * limit)
            await live(client, clock, x, 0, saved)
            await a.save([a.sessions[started.session]])
            await live(client, clock, x, saved, lost)
            a.reach.broken = True
            client.lose()
            before = len(client.audio)
            had = sum(len(audio.samples) for audio in client.audio)
            clock.now = 1_000.0 + back / 24_000
            go(client, b)
            await client.resume()
            for at in range(lost, back, block):  # captured while there was no connection
                await captured(client, x, at)
            call = b.sessions[started.session]
            nominal = call.waiting.nominal
            while call.samples_in < back or call.queued >= block / 24_000 or len(call.waiting):
                await asyncio.sleep(0.005)
            await heard(client, call.samples_out)
            await live(client, clock, x, back, len(x))
            stopped = await client.stop()
            y = client.samples()
            cuts = [index for index, audio in enumerate(client.audio) if audio.dropped]
            assert cuts and cuts[0] >= before
            # Of what was captured before `back` the client had `had` samples, and of what it had
            # not, one frame is made before anything counts as stale. From there on all is dropped
            # but the freshest: input that is at most `limit` old, or output that had been made of
            # it before limits held again, for which `nominal` more is allowed. How much of what is
            # fresh goes with the stale is a matter of how much had arrived at the tick that cut.
            stale = back - had - block - 24_000 * (limit + nominal)
            assert stale <= 24 * stopped.dropped_ms <= back - had
            assert len(y) == round(96_000 - 24 * stopped.dropped_ms)
            assert stopped.lag_p50_ms < 100  # a block, a chunk, the model's 37.5 ms
            position = np.concatenate(
                [[0], np.cumsum([len(audio.samples) for audio in client.audio])]
            )
            whole = position[cuts[0]]
            np.testing.assert_allclose(y[:whole], x[:whole], atol=1e-6)
            np.testing.assert_allclose(y[back - len(x) :], x[back:], atol=1e-6)

    run(main)
