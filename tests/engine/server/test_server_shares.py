"""Nobody takes what others need: places, uploads, urgency and alarms; and a server that converts
nothing says so."""

import asyncio
import contextlib
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
from calling import Client, noise, refused, until
from serving import make_service, served
from test_server_uploads import recording, upload
from websockets.exceptions import ConnectionClosed

from rtvc.engine.admission.limits import ServerLimits
from rtvc.engine.protocol.fields import Code
from rtvc.engine.protocol.messages import Error, Ping, Start
from rtvc.engine.server import places, pool_thread, reception, workers

A, B = "10.0.0.1", "10.0.0.2"


def behind_proxy(service):
    """Clients may say from where they are."""
    service.proxies = frozenset({"127.0.0.1"})


async def status(url, path, token=None):
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(
        url.replace("ws", "http", 1).removesuffix("/v1") + path, headers=headers
    )

    def get():
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    return await asyncio.to_thread(get)


async def answered(url, path, wanted, seconds=10):
    """Waits until a path answers with this status."""
    async with asyncio.timeout(seconds):
        while await status(url, path) != wanted:
            await asyncio.sleep(0.05)


async def clients(url, count, address=None):
    found = [Client(url, forwarded=address) for _ in range(count)]
    for client in found:
        await client.connect()
    return found


def test_an_address_has_half_of_the_places_and_this_machine_all():
    assert [
        ServerLimits().share(address, 7) for address in (A, "2001:db8::1", "127.0.0.9", "::1")
    ] == [4, 4, 7, 7]
    assert ServerLimits(sessions_per_address=3).share("127.0.0.1", 7) == 3


def test_one_address_cannot_take_all_places_even_at_once(tmp_path):
    async def main():
        async with served(tmp_path, sessions=4) as (server, url):
            behind_proxy(server)
            greedy, modest = await clients(url, 4, A), await clients(url, 2, B)
            for client in greedy:  # all of them before any answer
                await client.send(
                    client.side.start(Start(sample_rate=24_000, format="f32", voice="one"))
                )
            # An answer each: who is refused is told, and then that the connection ends.
            await until(lambda: all(client.messages.qsize() for client in greedy))
            assert len(server.sessions) == 2
            for client in modest:
                await client.start()
            assert len(server.sessions) == 4
            errors = [client.messages.get_nowait() for client in greedy]
            assert (
                sum(
                    isinstance(one, Error)
                    and one.code is Code.FULL
                    and "your address" in one.message
                    for one in errors
                )
                == 2
            )
            for client in [*greedy, *modest]:
                await client.close()

    asyncio.run(main())


def test_a_session_without_audio_gives_its_place_to_who_speaks(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "SPARE_S", 0.3)

    async def main():
        async with served(tmp_path, sessions=2) as (server, url):
            silent, speaker, late = await clients(url, 3)
            await silent.start()
            await speaker.start()
            speaking = asyncio.create_task(speaker.speak(x := noise(24_000), paced=True))
            assert (await refused(late.start())).code is Code.FULL
            await late.connect()
            for _ in range(8):
                await silent.send(Ping().text())  # pings are no audio
                await asyncio.sleep(0.05)
            await late.start()
            error = await silent.expect(Error)
            assert error.code is Code.IDLE and error.fatal and len(server.sessions) == 2
            await speaking
            await speaker.stop()
            np.testing.assert_array_equal(speaker.samples(), x)
            for client in (silent, speaker, late):
                await client.close()

    asyncio.run(main())


def test_a_session_without_audio_ends_whatever_else_its_client_says(tmp_path):
    async def main():
        async with served(tmp_path, silent_s=0.6) as (server, url), Client(url) as client:
            await client.start()
            for _ in range(3):  # what is silent is audio
                await client.speak(np.zeros(480, np.float32))
                await asyncio.sleep(0.3)
            assert server.sessions
            with contextlib.suppress(ConnectionClosed):
                for _ in range(5):
                    await client.send(Ping().text())
                    await asyncio.sleep(0.2)
            assert (
                (await client.expect(Error)).code is Code.IDLE
                and not server.sessions
                and not server.pool.sessions
            )

    asyncio.run(main())


def test_a_session_that_the_server_does_not_read_is_not_called_silent(tmp_path):
    async def main():
        async with (
            served(tmp_path, idle_s=0.5, queue_s=0.2) as (server, url),
            Client(url) as client,
        ):
            await client.start(output_rate=192_000)
            client.socket.transport.pause_reading()
            speaking = asyncio.create_task(client.speak(noise(24_000 * 20)))
            for _ in range(20):
                await asyncio.sleep(0.02)
                (call,) = server.sessions.values()
                if not call.room.is_set():
                    break
            call.spoke -= 60
            assert call.silent(server.pool.clock()) == 0.0
            speaking.cancel()

    asyncio.run(main())


def test_uploads_have_shares_and_must_move(tmp_path, monkeypatch):

    async def main():
        async with served(tmp_path) as (server, url):
            behind_proxy(server)
            idle = await clients(url, 3, A)

            async def announce(client, name):
                await client.send(next(iter(client.side.upload(name, bytes(100_000)))))

            for client in idle[:2]:
                await announce(client, "idle")
            # Places are given in the order in which threads answer: the third asks last.
            await until(lambda: server.uploads.under_way == 2)
            await announce(idle[2], "idle")
            assert "of your address" in (await idle[2].expect(Error)).message
            monkeypatch.setattr(reception, "UPLOAD_GRACE_S", 0.4)
            (other,) = await clients(url, 1, B)
            assert (await upload(other, "anna", recording())).name == "anna"
            for client in idle[:2]:
                error = await client.expect(Error)
                assert error.code is Code.BAD_UPLOAD and error.fatal and "0 bytes" in error.message
            await until(lambda: server.uploads.under_way == 0)
            for _ in range(2):  # both places of the address are free again
                server.uploads.admit(A)
            for client in [*idle, other]:
                await client.close()

    asyncio.run(main())


@pytest.mark.parametrize("problem", [SystemExit, RuntimeError, MemoryError])
@pytest.mark.parametrize("where", ["tick", "take"])
def test_a_server_whose_pool_is_not_stepped_says_so_to_everybody(
    tmp_path, where, problem, monkeypatch
):
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)

    async def main():
        async with served(tmp_path) as (server, url), Client(url) as client, Client(url) as second:
            assert await status(url, "/readyz") == await status(url, "/healthz") == 200
            await client.start()

            def broken(*_):
                raise problem("injected")

            if where == "tick":
                monkeypatch.setattr(server.pool, "tick", broken)
            else:
                (call,) = server.sessions.values()
                monkeypatch.setattr(call.pooled.chunker, "take", broken)
            await client.speak(noise(1_200))
            assert (await client.expect(Error)).code is Code.INTERNAL
            await until(lambda: not server.sessions)
            count = server.metrics.registry.get_sample_value
            await until(lambda: count("rtvc_internal_errors_total") >= 1)
            if problem is SystemExit:
                assert await status(url, "/readyz") == await status(url, "/healthz") == 503
                assert (await refused(second.start())).code is Code.INTERNAL
            elif where == "take":  # the thread goes on: sessions that begin now are served
                assert await status(url, "/readyz") == 200

    asyncio.run(main())


def test_threads_that_hang_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(pool_thread, "LATE_S", 0.5)
    monkeypatch.setattr(workers, "CONTROL_S", 0.6)
    release = threading.Event()

    async def main():
        async with served(tmp_path) as (server, url):
            assert await status(url, "/readyz") == 200
            with server.pool.stepping:
                await asyncio.sleep(0.8)
                assert not server.ready and await status(url, "/healthz") == 503
            await answered(url, "/readyz", 200)
            hanging = asyncio.ensure_future(server.workers.control(release.wait))
            await answered(url, "/readyz", 503)
            release.set()
            await hanging
            await answered(url, "/readyz", 200)

    asyncio.run(main())


def test_the_sweep_goes_on_after_an_error(tmp_path, monkeypatch):
    async def main():
        async with served(tmp_path, hello_s=0.3) as (server, url):
            right = server.sweep

            async def once(now):
                monkeypatch.setattr(server, "sweep", right)
                raise RuntimeError("injected")

            monkeypatch.setattr(server, "sweep", once)
            from websockets.asyncio.client import connect

            async with connect(
                url, origin=url.replace("ws", "http", 1).removesuffix("/v1")
            ) as silent:
                assert '"idle"' in await asyncio.wait_for(silent.recv(), 2)
            assert server.metrics.registry.get_sample_value("rtvc_internal_errors_total") == 1

    asyncio.run(main())


def test_metrics_want_the_token(tmp_path):
    from pydantic import SecretStr

    from rtvc.engine.admission.access import Access

    token = "a-long-and-secret-token"

    async def main():
        async with served(
            tmp_path / "a", access=Access(SecretStr(token)), failures_per_minute=2
        ) as (_, url):
            tokens = (None, token, "wrong", "wrong", "wrong", token)
            assert [await status(url, "/metrics", given) for given in tokens] == [
                401, 200, 401, 429, 429, 200,
            ]  # fmt: skip
            assert await status(url, "/healthz") == await status(url, "/readyz") == 200
        async with served(tmp_path / "b") as (_, url):
            assert await status(url, "/metrics") == 200

    asyncio.run(main())


def test_services_that_are_not_entered_are_not_ready(tmp_path):
    assert not make_service(tmp_path).ready
