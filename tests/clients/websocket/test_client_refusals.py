"""What goes wrong with the Python client, and what it says: refusals, servers that are none,
addresses."""

import asyncio
import logging

import pytest
from calling import noise
from serving import served
from test_client_python import F32, run

import rtvc
from rtvc.clients.websocket.address import origin_of, websocket_address
from rtvc.engine.admission.access import Access
from rtvc.engine.protocol.fields import Code
from rtvc.engine.protocol.refusals import Refusal as ServersRefusal
from rtvc.errors import ConfigError, ProtocolError, ServiceError


def test_refusals_say_why(tmp_path):
    from pydantic import SecretStr

    async def main():
        async with served(tmp_path, access=Access(SecretStr("open sesame twice"))) as (_, url):
            for token in (None, "wrong"):
                with pytest.raises(rtvc.clients.Refusal, match="refused") as caught:
                    async with rtvc.clients.connect(url, "one", token=token):
                        pass
                assert caught.value.code is Code.UNAUTHORIZED and isinstance(
                    caught.value, ServiceError
                )
            async with rtvc.clients.connect(
                url.removesuffix("/v1"), token="open sesame twice"
            ) as c:
                with pytest.raises(ServiceError, match="no session runs"):
                    await c.send(noise(480))
                with pytest.raises(rtvc.clients.Refusal) as caught:
                    await c.start("nobody")
                assert caught.value.code is Code.UNKNOWN_VOICE
                with pytest.raises(ConfigError, match="bit_rate"):
                    await c.start("one", bit_rate=3)
                with pytest.raises(ConfigError, match="sample_rate = 12345"):
                    await c.start("one", sample_rate=12_345)
                with pytest.raises(ConfigError, match="pitch = 99"):
                    await c.start("one", pitch=99)
                await c.start("one")
                for change in ({"pitch": float("nan")}, {"wet": 2.0}, {"voice": ""}):
                    with pytest.raises(ConfigError, match=f"{next(iter(change))} = "):
                        await c.update(**change)
                with pytest.raises(ConfigError, match="name = "):
                    await c.upload(b"some audio", "x" * 300)
                assert (await c.stats()).type == "stats"  # the connection is none the worse
            secret = "hush " * 60
            with pytest.raises(ConfigError, match="a token of 300 characters") as token_error:
                async with rtvc.clients.connect(url, "one", token=secret):
                    pass
            assert "hush" not in str(token_error.value)

    run(main)


def test_a_fatal_refusal_ends_the_session(tmp_path):
    async def main():
        async with served(tmp_path) as (service, url), rtvc.clients.connect(url, "one", **F32) as c:
            await c.send(noise(480))
            for connection in service.connections:
                connection.expel(
                    ServersRefusal(
                        Code.INTERNAL, "the conversion failed", "start a new session", fatal=True
                    )
                )
            with pytest.raises(
                rtvc.clients.Refusal, match="the conversion failed: start a new session"
            ):
                async for _ in c:
                    pass

    run(main)


def test_servers_that_are_none(tmp_path):
    async def main():
        with pytest.raises(
            ServiceError,
            match=r"ws://127\.0\.0\.1:9/v1 cannot be reached .*is `rtvc serve` running",
        ):
            async with rtvc.clients.connect("ws://127.0.0.1:9"):
                pass

        async def silly(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(
                b"HTTP/1.1 403 Forbidden\r\nContent-Length: 23\r\n\r\nthis is a coffee machine"
            )
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(silly, "127.0.0.1", 0)
        async with server:
            with pytest.raises(ServiceError, match=r"403.*coffee"):
                async with rtvc.clients.connect(
                    f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
                ):
                    pass

        from websockets.asyncio.server import serve

        async def strange(socket):
            await socket.recv()
            await socket.send('{"type": "nonsense"}')

        async with serve(strange, "127.0.0.1", 0) as other:
            with pytest.raises(ProtocolError, match="does not speak this protocol"):
                async with rtvc.clients.connect(
                    f"ws://127.0.0.1:{next(iter(other.sockets)).getsockname()[1]}"
                ):
                    pass

    run(main)


def test_draining_and_complaints_are_logged(tmp_path, caplog):
    async def main():
        async with (
            served(tmp_path, drain_s=0.3) as (service, url),
            rtvc.clients.connect(url, "one", **F32) as c,
        ):
            await c.send(noise(480))
            await service.drain()
            with pytest.raises(ServiceError):
                async for _ in c:
                    pass

    with caplog.at_level(logging.WARNING, "rtvc.clients"):
        run(main)
    assert "goes down within" in caplog.text


def test_addresses():
    assert websocket_address("ws://127.0.0.1:8765") == "ws://127.0.0.1:8765/v1"
    assert websocket_address("https://voice.example.org/") == "wss://voice.example.org/v1"
    assert websocket_address("wss://example.org/rtvc/v1") == "wss://example.org/rtvc/v1"
    assert (
        origin_of("wss://example.org/rtvc/v1") == "https://example.org"
        and origin_of("ws://a:1") == "http://a:1"
    )
    for bad in ("example.org", "ftp://a", "ws://"):
        with pytest.raises(ServiceError, match="expected an address like ws://"):
            websocket_address(bad)
    for bad in ("ws://[", "ws://[::1", "ws://a:b", "ws://a:99999", "wss://me:hush@["):
        with pytest.raises(ServiceError, match="expected an address like ws://") as caught:
            websocket_address(bad)
        assert "hush" not in str(caught.value)
    for secret in ("ws://me:hush@a/v1", "ws://a/v1?token=hush"):
        with pytest.raises(ServiceError, match="give the token apart") as caught:
            websocket_address(secret)
        assert "hush" not in str(caught.value)
