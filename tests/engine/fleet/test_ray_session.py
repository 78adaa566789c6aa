"""Sessions that move between replicas, in one process and without Ray: what a crash, a move and a
shutdown do to the audio."""

import asyncio
import functools
import time
from contextlib import asynccontextmanager

import numpy as np
import pytest
from calling import Client, Refusal, noise
from serving import make_service

import rtvc
from rtvc.engine.fleet import vault as ray_vault
from rtvc.engine.fleet.service import FleetService, Membership, digest
from rtvc.engine.fleet.session import Packed
from rtvc.engine.fleet.vault import Copy, Replica, Vault
from rtvc.engine.protocol.fields import Code
from rtvc.engine.protocol.messages import Draining, Update, Updated
from rtvc.engine.server.app import serving
from rtvc.engine.streams.state_bytes import from_bytes, to_bytes


class Reach:
    """A replica's way to the vault, which can break."""

    def __init__(self, vault):
        self.vault, self.broken = vault, False

    def __getattr__(self, name):
        async def call(*arguments):
            if self.broken:
                raise ConnectionError("the vault is out of reach")
            answer = await getattr(self.vault, name)(*arguments)
            if self.broken:
                raise ConnectionError("the vault's answer does not arrive")
            return answer

        return call


class Hand:
    """A clock that the test moves: what is stale does not hang on how busy the machine is."""

    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


@asynccontextmanager
async def replica(folder, name, vault, *, every=0.2, spare=0, clock=None, **settings):
    reach = Reach(vault)
    membership = Membership(name, "127.0.0.1", [reach], every=every, spare=spare)
    kind = functools.partial(FleetService, membership=membership, wall=clock or time.time)
    service = make_service(folder, kind=kind, clock=clock or time.perf_counter, **settings)
    async with serving(service) as service.port:
        service.url, service.reach = f"ws://127.0.0.1:{service.port}/v1", reach
        yield service


def run(work, seconds=30):
    asyncio.run(asyncio.wait_for(work(), seconds))


def go(client, service):
    """The client's next connection leads elsewhere."""
    client.url = service.url
    client.origin = f"http://127.0.0.1:{service.port}"


async def heard(client, samples):
    async with asyncio.timeout(10):
        while sum(len(audio.samples) for audio in client.audio) < samples:
            await asyncio.sleep(0.005)


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
            ahead = client.side.incoming.wanted
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


def test_strangers_and_impossible_resumptions(tmp_path):
    async def main():
        vault = Vault(young=0.0)
        async with (
            replica(tmp_path, "a", vault) as a,
            replica(tmp_path, "b", vault, rows=1) as b,
            Client(a.url) as client,
        ):
            started = await client.start()
            await client.speak(noise(24_000))
            assert (
                await vault.claim(started.session, digest("a wrong key"), "b") is None
                and started.session in a.sessions
            )
            async with Client(b.url) as stranger:
                stranger.side.incoming, stranger.side.started = (
                    client.side.incoming,
                    started.model_copy(update={"session": "nobody's"}),
                )
                with pytest.raises(Refusal) as caught:
                    await stranger.resume()
                assert caught.value.args[0].code is Code.UNKNOWN_SESSION
            a.reach.broken = True
            client.lose()
            go(client, b)
            async with Client(b.url) as other:
                await other.start()
                with pytest.raises(Refusal) as caught:
                    await client.resume()
                assert caught.value.args[0].code is Code.FULL
                await other.stop()
            client.side.incoming.wanted = 100_000
            with pytest.raises(Refusal) as caught:
                await client.resume()
            assert caught.value.args[0].code is Code.TOO_LATE

    run(main)


def test_a_replica_with_another_chunk_cannot_take_it_up(tmp_path):
    async def main():
        vault = Vault()
        async with (
            replica(tmp_path, "a", vault) as a,
            replica(tmp_path, "b", vault, chunk=1_200) as b,
            Client(a.url) as client,
        ):
            await client.start()
            await client.speak(noise(4_800))
            client.lose()
            go(client, b)
            with pytest.raises(Refusal) as caught:
                await client.resume()
            assert (
                caught.value.args[0].code is Code.TOO_LATE
                and not b.sessions
                and not b.pool.sessions
            )

    run(main)


def test_new_sessions_leave_room_for_those_that_move(tmp_path):
    async def main():
        vault = Vault()
        async with (
            replica(tmp_path, "a", vault, rows=3, spare=1) as a,
            Client(a.url) as one,
            Client(a.url) as two,
            Client(a.url) as three,
        ):
            await one.start()
            assert a.ready
            await two.start()
            assert not a.ready
            with pytest.raises(Refusal) as caught:
                await three.start()
            assert caught.value.args[0].code is Code.FULL

    run(main)


def test_while_the_vault_is_away_sessions_go_on_and_nobody_is_sent_off_for_good(tmp_path):
    async def main():
        vault, x = Vault(), noise(48_000)
        async with (
            replica(tmp_path, "a", vault, every=0.1) as a,
            replica(tmp_path, "b", vault) as b,
            Client(a.url) as client,
        ):
            started = await client.start()
            a.reach.broken = b.reach.broken = True
            await client.speak(x[:24_000])
            client.lose()
            go(client, b)
            with pytest.raises(Refusal) as caught:
                await client.resume()
            assert caught.value.args[0].code is Code.FULL
            vault = a.reach.vault = b.reach.vault = Vault()  # it comes back with nothing
            a.reach.broken = b.reach.broken = False
            while started.session not in vault.sessions:
                await asyncio.sleep(0.02)
            await client.resume()
            await client.speak(x[24_000:])
            await client.stop()
            np.testing.assert_allclose(client.samples(), x, atol=1e-6)

    run(main)


def test_draining_is_told(tmp_path):
    async def main():
        async with replica(tmp_path, "a", Vault()) as a, Client(a.url) as client:
            await client.start()
            task = asyncio.create_task(a.hand_over())
            assert (await client.expect(Draining)).seconds == 0
            await task
            assert await client.messages.get() is None and client.socket.close_code == 1001

    run(main)


def test_clocks_of_two_machines(tmp_path):
    """A machine whose clock began 1,000 s earlier: capture times are moved, and nothing else."""

    async def main():
        vault = Vault()
        async with replica(tmp_path, "a", vault) as a, Client(a.url) as client:
            started = await client.start()
            await client.speak(noise(12_345))
            call = a.sessions[started.session]
            packed = Packed(await a.freeze(call))
            wall = packed.tree["wall"] - 1_000
            before, after = (
                from_bytes(data)["line"]
                for data in (packed.tree["parcel"].tobytes(), packed.pooled(wall))
            )
            assert after["captured"] - before["captured"] == pytest.approx(1_000, abs=1e-3)
            np.testing.assert_allclose(
                after["backlog"]["marks"][:, 1] - before["backlog"]["marks"][:, 1], 1_000, atol=1e-3
            )
            np.testing.assert_array_equal(
                after["backlog"]["marks"][:, 0], before["backlog"]["marks"][:, 0]
            )
            for line in (before, after):
                line["captured"] = line["backlog"]["marks"] = None
            assert to_bytes({"line": before}) == to_bytes({"line": after})

    run(main)


def test_the_vault_is_bounded_and_forgets():
    async def main():
        now = [0.0]
        vault = Vault(keep=10, most=1_000, clock=lambda: now[0])
        for index in range(5):
            assert await vault.save("a", [Copy(f"s{index}", b"k", bytes(300))]) == []
        assert list(vault.sessions) == ["s2", "s3", "s4"] and vault.bytes == 900
        now[0] = 5.0
        await vault.save("a", [Copy("s2", b"k", bytes(100))])
        now[0] = 11.0
        assert await vault.claim("s3", b"k", "b") is None and vault.bytes == 100
        assert await vault.claim("s2", b"k", "b") == bytes(100)
        assert await vault.save("a", [Copy("s2", b"k", b"")]) == ["s2"], "it belongs to b now"
        await vault.forget("a", ["s2"])
        assert vault.bytes == 100
        await vault.forget("b", ["s2"])
        assert not vault.sessions and vault.bytes == 0
        assert await vault.replicas() == []
        task = asyncio.create_task(vault.heartbeat(Replica("a", "h", 1, 0, 4, False)))
        await asyncio.sleep(0)
        assert [r.name for r in await vault.replicas()] == ["a"] and await task == []
        now[0] += ray_vault.ALIVE_S + ray_vault.BEAT_S + 0.1
        assert await vault.replicas() == []
        now[0] = 0.5
        with pytest.raises(LookupError):
            await Vault(clock=lambda: now[0]).claim("s", b"k", "b")

    run(main)
