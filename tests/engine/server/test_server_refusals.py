"""Who and what a server turns away: tokens, origins, sizes, floods; and that its log tells no
secrets."""

import asyncio
import logging
import time

import pytest
from calling import Client, Refusal, noise
from pydantic import SecretStr
from serving import served
from websockets.exceptions import ConnectionClosed, InvalidStatus

from rtvc.engine.admission.access import Access, check_binding, is_loopback, normal, read_token
from rtvc.engine.admission.limits import Bucket, Failures
from rtvc.engine.protocol.fields import Code
from rtvc.engine.protocol.messages import Error, Ping, Pong
from rtvc.engine.server.dialogue import FAILURE_S
from rtvc.errors import ConfigError

TOKEN = "a-long-and-secret-token"
UNREADABLE = ("[", "]", "[::1", "[x]", "a:b:c", "a:-1", "a:99999", "[::1]x", "//[", "\u2100")
"""What parsers of addresses raise ValueErrors for, each in its own way."""


def test_a_wrong_token_is_refused_counted_and_never_logged(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)

    async def main():
        async with served(tmp_path, access=Access(SecretStr(TOKEN)), failures_per_minute=3) as (
            service,
            url,
        ):
            async with Client(url, TOKEN) as client:
                await client.start()
                key = client.side.started.key.get_secret_value()
                await client.speak(noise(600))
                await client.stop()
            for token in (None, "guessed-token", "é" * 20):
                with pytest.raises(Refusal, match="unauthorized"):
                    await Client(url, token).connect()
            async with Client(
                url, TOKEN
            ):  # wrong tokens of others at its address do not lock out the right one
                pass
            began = time.perf_counter()
            with pytest.raises(Refusal, match="unauthorized"):
                await Client(url, "guessed-token").connect()
            assert time.perf_counter() - began >= FAILURE_S
            assert (
                service.metrics.registry.get_sample_value(
                    "rtvc_refusals_total", {"code": "unauthorized"}
                )
                == 4
            )
            return key

    key = asyncio.run(main())
    assert "code=unauthorized" in caplog.text
    server_log = "\n".join(
        record.getMessage() for record in caplog.records if record.name.startswith("rtvc")
    )
    assert TOKEN not in server_log and "guessed-token" not in server_log and key not in server_log


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "null",
        "http://evil.example",
        "http://127.0.0.1.evil.example",
        "http://127.0.0.1:1",
        "file://",
    ],
)
def test_strange_and_missing_origins_are_refused(tmp_path, origin, caplog):
    async def main():
        async with served(tmp_path) as (service, url):
            with pytest.raises(InvalidStatus, match="403"):
                await Client(url, origin=origin).connect()
            assert (
                service.metrics.registry.get_sample_value("rtvc_refusals_total", {"code": "origin"})
                == 1
            )

    asyncio.run(main())
    assert "code=origin" in caplog.text


def test_which_origins_are_right():
    access = Access(SecretStr(TOKEN), ["https://voice.example.org"], "10.0.0.5", missing=True)
    for origin, host in [
        ("http://10.0.0.5:8765", "10.0.0.5:8765"),
        ("http://localhost:8765", "localhost:8765"),
        ("http://[::1]:8765", "[::1]:8765"),
        ("https://192.168.1.7", "192.168.1.7"),
        ("HTTPS://Voice.Example.org:443", "internal:8765"),
        (None, "10.0.0.5:8765"),
    ]:
        assert access.origin_is_right(origin, host), origin
    for origin, host in [
        ("http://rebound.example:8765", "rebound.example:8765"),
        ("http://10.0.0.5:8765", "10.0.0.5:1"),
        ("http://10.0.0.5:8765", None),
        ("https://voice.example.org.evil.example", "x"),
        ("http://voice.example.org", "x"),
        ("http://a:b@10.0.0.5:8765", "10.0.0.5:8765"),
        ("http://10.0.0.5:99999", "10.0.0.5:99999"),
        *((f"http://{bad}", "10.0.0.5:8765") for bad in UNREADABLE),
        *(("http://10.0.0.5:8765", bad) for bad in UNREADABLE),
    ]:
        assert not access.origin_is_right(origin, host), origin
    assert not Access(SecretStr(TOKEN)).origin_is_right(None, "127.0.0.1")
    with pytest.raises(ConfigError, match="token"):
        Access(missing=True)
    for bad in ("voice.example.org", *(f"https://{one}" for one in UNREADABLE)):
        with pytest.raises(ConfigError, match="SCHEME"):
            normal(bad)


def test_headers_that_cannot_be_read_are_refused_and_counted(tmp_path):
    async def main():
        async with served(tmp_path) as (service, url):
            sendable = [bad for bad in UNREADABLE if bad.isascii()]
            for bad in sendable:
                with pytest.raises(InvalidStatus, match="403"):
                    await Client(url, origin=f"http://{bad}").connect()
            assert service.metrics.registry.get_sample_value(
                "rtvc_refusals_total", {"code": "origin"}
            ) == len(sendable)

    asyncio.run(main())


def test_without_a_token_only_this_machine_is_served(tmp_path):
    check_binding("127.0.0.1", None, insecure=False)
    check_binding("::1", None, insecure=False)
    check_binding("0.0.0.0", SecretStr(TOKEN), insecure=False)
    check_binding("0.0.0.0", None, insecure=True)
    for host in ("0.0.0.0", "::", "192.168.0.4", "voice.example.org"):
        with pytest.raises(ConfigError, match="--token-file"):
            check_binding(host, None, insecure=False)
    assert is_loopback("localhost") and not is_loopback("example.org")
    file = tmp_path / "token"
    for content in (b"short", b"\xff" * 20, b"two words and more than sixteen"):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match="openssl rand"):
            read_token(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_token(tmp_path / "none")
    file.write_text(f"{TOKEN}\n")
    assert read_token(file).get_secret_value() == TOKEN


def test_oversized_frames_and_unreadable_texts_close_only_their_connection(tmp_path, caplog):
    async def main():
        async with served(tmp_path) as (_, url), Client(url) as calm:
            await calm.start()
            for data, code in [(bytes(300_000), 1009), ("x" * 300_000, 1009), ("x" * 20_000, 1009)]:
                client = Client(url)
                await client.connect()
                with pytest.raises(ConnectionClosed):
                    await client.send(data)
                    await client.socket.wait_closed()
                    await client.send(data)
                assert client.socket.close_code == code
            await calm.speak(noise(4_800))
            assert (await calm.stop()).samples_out == 4_800

    asyncio.run(main())
    assert caplog.text.count("code=too_large") == 3


def test_floods_of_messages_wait_and_too_many_mistakes_end_it(tmp_path):
    async def main():
        async with (
            served(tmp_path, messages_per_second=50, mistakes=5) as (_, url),
            Client(url) as client,
        ):
            began = time.perf_counter()
            for index in range(150):
                await client.send(Ping(id=index).text())
            for index in range(150):
                assert (await client.expect(Pong)).id == index
            assert time.perf_counter() - began > 0.9
            for _ in range(6):
                await client.send("{}")
            codes = [(await client.expect(Error)).code for _ in range(6)]
            assert (
                codes == [Code.MALFORMED] * 5 + [Code.RATE_LIMITED]
                and await client.messages.get() is None
            )

    asyncio.run(main())


def test_connections_are_bounded(tmp_path):
    async def main():
        for bound in ("connections", "connections_per_address"):
            async with served(tmp_path, **{bound: 2}) as (_, url), Client(url), Client(url):
                with pytest.raises(InvalidStatus, match="503"):
                    await Client(url).connect()

    asyncio.run(main())


def test_connections_are_counted_by_what_a_known_proxy_says(tmp_path):
    async def main():
        async with served(tmp_path, connections_per_address=1) as (service, url):
            for known in (False, True):
                service.proxies = frozenset({"127.0.0.1"} if known else ())
                # The last entry is the proxy's word; what stands before it is the client's own
                # claim.
                async with Client(url, forwarded="10.9.9.9, 10.0.0.1"):
                    assert {c.transport.address for c in service.connections} == {
                        "10.0.0.1" if known else "127.0.0.1"
                    }
                    with pytest.raises(InvalidStatus, match="503"):
                        await Client(url, forwarded="10.8.8.8, 10.0.0.1").connect()
                    if known:
                        async with Client(url, forwarded="10.0.0.2"):
                            pass

    asyncio.run(main())


def test_buckets_and_failures_forget_with_time():
    now = [0.0]
    bucket = Bucket(2.0, 3.0, lambda: now[0])
    assert [bucket.wait() for _ in range(5)] == [0, 0, 0, 0.5, 1.0]
    now[0] = 2.5
    assert bucket.take() and bucket.take() and bucket.take() and not bucket.take()
    failures = Failures(2.0, lambda: now[0])
    failures.add("a")
    assert not failures.too_many("a") and not failures.too_many("b")
    failures.add("a")
    assert failures.too_many("a")
    now[0] += 31
    assert not failures.too_many("a")
    for index in range(5_000):
        failures.add(str(index))
    assert failures.remembered == 4_096
