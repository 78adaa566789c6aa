"""What a fleet refuses and bounds: strangers, full replicas, an absent vault, clocks apart."""

import asyncio

import numpy as np
import pytest
from calling import Client, noise, refused

from rtvc.engine.fleet import vault as ray_vault
from rtvc.engine.fleet.service import digest
from rtvc.engine.fleet.session import Packed
from rtvc.engine.fleet.vault import Copy, Replica, Vault
from rtvc.engine.protocol.fields import Code
from rtvc.engine.protocol.messages import Draining
from rtvc.engine.streams.state_bytes import from_bytes, to_bytes
from tests.support.replicas import go, replica
from tests.support.timed import run


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
                assert (await refused(stranger.resume())).code is Code.UNKNOWN_SESSION
            a.reach.broken = True
            client.lose()
            go(client, b)
            async with Client(b.url) as other:
                await other.start()
                assert (await refused(client.resume())).code is Code.FULL
                await other.stop()
            client.side.incoming.expected = 100_000
            assert (await refused(client.resume())).code is Code.TOO_LATE

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
            assert (await refused(client.resume())).code is Code.TOO_LATE
            assert not b.sessions and not b.pool.sessions

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
            assert (await refused(three.start())).code is Code.FULL

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
            assert (await refused(client.resume())).code is Code.FULL
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
