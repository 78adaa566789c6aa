"""What the port answers to plain HTTP, and over TLS."""

import asyncio
import json
import urllib.error
import urllib.request

import pytest
from calling import Client, Refusal, noise
from certificates import certificate_in
from serving import make_service, served
from websockets.asyncio.client import connect

from rtvc.engine.admission.entrance import listen
from rtvc.engine.server.app import secure, serving
from rtvc.errors import ConfigError


async def fetch(url, path):
    def get():
        try:
            with urllib.request.urlopen(
                url.replace("ws", "http", 1).removesuffix("/v1") + path
            ) as answer:
                return answer.status, dict(answer.headers), answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read().decode()

    return await asyncio.to_thread(get)


def test_plain_http(tmp_path):
    page = tmp_path / "page"
    page.mkdir()
    for name in ("index.html", "main.js", "notes.txt", "secret.py"):
        (page / name).write_text(f"this is {name}")

    async def main():
        async with served(tmp_path / "voices", rows=1, page=page) as (service, url):
            status, headers, body = await fetch(url, "/?x=1")
            assert (status, body) == (200, "this is index.html") and "script-src 'self'" in headers[
                "Content-Security-Policy"
            ]
            status, headers, _ = await fetch(url, "/main.js")
            assert (
                status == 200
                and headers["Content-Type"].startswith("text/javascript")
                and headers["X-Content-Type-Options"] == "nosniff"
            )
            for path in (
                "/notes.txt",
                "/secret.py",
                "/../page/main.js",
                "/%2e%2e/voices/one.voice",
                "//etc/passwd",
                "/page/",
            ):
                assert (await fetch(url, path))[0] == 404
            assert (await fetch(url, "/healthz"))[0] == 200
            assert json.loads((await fetch(url, "/readyz"))[2]) == {
                "ready": True,
                "draining": False,
                "sessions": 0,
                "limit": 1,
            }
            async with Client(url) as client:
                await client.start()
                await client.speak(noise(6_000))
                assert (await fetch(url, "/readyz"))[0] == 503
                async with Client(url) as late:
                    with pytest.raises(Refusal, match="'full'"):
                        await late.start()
                await client.stop()
            status, headers, text = await fetch(url, "/metrics")
            assert status == 200 and headers["Content-Type"].startswith("text/plain")
            for line in (
                'rtvc_refusals_total{code="full"} 1.0',
                "rtvc_sessions 0.0",
                'rtvc_frames_total{direction="in"} 13.0',
                "rtvc_ready 1.0",
            ):
                assert line in text
            assert "rtvc_step_seconds_count 10.0" in text or "rtvc_step_seconds_count 12.0" in text
            assert service.ready

    asyncio.run(main())
    with pytest.raises(ConfigError, match="without index"):
        make_service(tmp_path / "voices")
        from rtvc.engine.server.web import read_page

        read_page(tmp_path)


def test_tls(tmp_path):
    import ssl

    certificate, key = certificate_in(tmp_path)

    async def main():
        async with serving(make_service(tmp_path / "voices"), tls=secure(certificate, key)) as port:
            trust = ssl.create_default_context(cafile=str(certificate))
            async with connect(
                f"wss://127.0.0.1:{port}/v1", ssl=trust, origin=f"https://127.0.0.1:{port}"
            ) as socket:
                await socket.send('{"type":"hello","version":1}')
                assert '"welcome"' in await socket.recv()

    asyncio.run(main())
    with pytest.raises(ConfigError, match="PEM"):
        secure(key, certificate)
    with listen("127.0.0.1", 0) as taken, pytest.raises(ConfigError, match="already"):
        listen("127.0.0.1", taken.getsockname()[1])
