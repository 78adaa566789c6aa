"""Strangers before any token: sockets that say nothing, pings without an end, readers that do not
read. The others notice nothing."""

import asyncio
import contextlib
import http.client
import logging
import socket
import time
import urllib.request
from functools import partial

import numpy as np
import psutil
import pytest
from calling import Client, noise
from serving import served
from test_server_crowd import Process

from rtvc.engine.admission.entrance import Accepted, Entrance, listen
from rtvc.engine.admission.guarded import CONTROL_BURST
from rtvc.engine.admission.logs import AT_ONCE, Sparing
from rtvc.engine.server.app import FAREWELL_S

PING = bytes([0x89, 0x80 | 125]) + b"\0\0\0\0" + bytes(125)
"""A ping of 125 bytes, masked with zeros."""


def port_of(url):
    return int(url.split(":")[2].split("/")[0])


async def opened(url):
    """A raw socket on which a websocket was opened, and whose answers nobody reads."""
    port = port_of(url)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4_096)
    lines = [
        "GET /v1 HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        f"Origin: http://127.0.0.1:{port}",
        "Upgrade: websocket",
    ]
    lines += [
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    assert b"101" in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def masked(text):
    data = text.encode()
    assert len(data) < 126
    return bytes([0x81, 0x80 | len(data)]) + b"\0\0\0\0" + data


def refusals(service, code):
    return service.metrics.registry.get_sample_value("rtvc_refusals_total", {"code": code}) or 0


async def lasts(reader):
    """Seconds until the other end is gone."""
    began = time.perf_counter()
    with contextlib.suppress(OSError):
        while await reader.read(65_536):
            pass
    return time.perf_counter() - began


@pytest.mark.parametrize("greeted", [False, True])
def test_pings_without_an_end_cost_no_memory_and_no_neighbour_anything(tmp_path, greeted):
    async def flood(url, until):
        while time.perf_counter() < until:
            _, writer = await opened(url)
            if greeted:
                writer.write(masked('{"type":"hello","version":1}'))
            with contextlib.suppress(OSError):
                while time.perf_counter() < until and not writer.is_closing():
                    writer.write(PING * 100)
                    async with asyncio.timeout(0.2):
                        await writer.drain()
            writer.transport.abort()
            await asyncio.sleep(0.05)

    async def main():
        async with served(tmp_path) as (service, url), Client(url) as calm:
            await calm.start()
            x, process = noise(24_000 * 3), psutil.Process()
            before, began = process.memory_info().rss, time.perf_counter()
            floods = [asyncio.create_task(flood(url, began + 2.5)) for _ in range(3)]
            await calm.speak(x, paced=True, began=began)
            await asyncio.gather(*floods, return_exceptions=True)
            await calm.stop()
            np.testing.assert_array_equal(calm.samples(), x)
            assert refusals(service, "control") >= 3
            assert process.memory_info().rss - before < 30e6

    asyncio.run(main())


def test_who_pings_as_often_as_anybody_needs_is_answered(tmp_path):
    async def main():
        async with served(tmp_path) as (service, url), Client(url) as client:
            for _ in range(int(CONTROL_BURST) // 2):
                await (await client.socket.ping())
            assert not refusals(service, "control")

    asyncio.run(main())


@pytest.mark.parametrize("frame", [bytes([0x8A, 0x80]) + bytes(4), bytes([0x00, 0x80]) + bytes(4)])
def test_pongs_and_empty_fragments_are_control_frames_as_well(tmp_path, frame):
    async def main():
        async with served(tmp_path) as (service, url):
            reader, writer = await opened(url)
            if frame[0] == 0:
                writer.write(bytes([0x01, 0x80]) + bytes(4))  # the beginning of a text
            writer.write(frame * 10_000)
            assert (
                await asyncio.wait_for(lasts(reader), 3) < 2 and refusals(service, "control") == 1
            )

    asyncio.run(main())


@pytest.mark.parametrize("says_hello", [False, True])
def test_a_peer_that_does_not_read_is_gone_soon_after_its_time(tmp_path, says_hello):
    async def main():
        async with served(tmp_path, hello_s=0.5, idle_s=0.5) as (service, url):
            reader, writer = await opened(url)
            if says_hello:
                writer.write(masked('{"type":"hello","version":1}'))
            reader._transport.pause_reading()
            for connection in list(
                service.connections
            ):  # its socket is as full as if it had asked for much
                connection.transport.connection.transport.write(bytes(8 << 20))
            began = time.perf_counter()
            while service.connections:
                await asyncio.sleep(0.02)
                assert time.perf_counter() - began < 0.5 + 3 * FAREWELL_S
            await asyncio.sleep(0.1)
            writer.transport.abort()

    asyncio.run(main())


def test_sockets_that_say_nothing_are_closed_and_make_room(tmp_path):
    async def main():
        async with served(tmp_path, handshakes_per_address=8, handshakes=16) as (service, url):
            silent = [await asyncio.open_connection("127.0.0.1", port_of(url)) for _ in range(40)]
            async with Client(url) as client:  # while they are there
                await client.start()
                await client.speak(noise(2_400))
                assert (await client.stop()).samples_out == 2_400
            assert refusals(service, "handshakes") >= 32
            gone = [asyncio.create_task(lasts(reader)) for reader, _ in silent[:30]]
            await asyncio.wait_for(asyncio.gather(*gone), 2)
            for _, writer in silent:
                writer.transport.abort()

    asyncio.run(main())


def test_a_process_without_descriptors_keeps_its_voices_its_health_and_a_short_log(tmp_path):
    """256 descriptors, 600 sockets: nothing of the others' is lost, and the log stays short."""

    async def main(url):
        silent, worst = [], 0.0
        for _ in range(600):
            one = socket.socket()
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                one.connect(("127.0.0.1", port_of(url)))
            silent.append(one)
        health = url.replace("ws", "http").replace("/v1", "/healthz")
        ask = partial(asyncio.to_thread, urllib.request.urlopen, health, None, 3)
        for _ in range(100):  # until the burst is over: who comes amid it may be turned away
            with contextlib.suppress(OSError, http.client.HTTPException):
                await ask()
                break
        for _ in range(5):
            began = time.perf_counter()
            answer = await ask()
            assert answer.status == 200
            worst = max(worst, time.perf_counter() - began)
            async with Client(url) as client:
                await client.start()
                await client.speak(noise(4_800))
                assert (await client.stop()).samples_out == 4_800
        for one in silent:
            one.close()
        return worst

    with Process(tmp_path, files=256) as server:
        worst = asyncio.run(main(server.url))
        text = server.logged()
        assert "Traceback" not in text and len(text) < 20_000, text[:2_000]
        assert worst < 3.0


def test_a_listener_without_a_descriptor_turns_one_away_and_says_nobody_is_there(monkeypatch):
    refused, accept, failing = [], socket.socket.accept, [True]
    entrance = Entrance(8, 8, 8, 5.0, refused=lambda code, address: refused.append(code))
    with (
        listen("127.0.0.1", 0, entrance) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):

        def exhausted(self):
            if failing.pop() if failing else False:
                raise OSError(24, "Too many open files")
            return accept(self)

        monkeypatch.setattr(socket.socket, "accept", exhausted)
        with pytest.raises(BlockingIOError):
            listener.accept()
        assert refused == ["descriptors"] and client.recv(1) == b"" and listener.spare is not None


def test_the_entrance_counts_by_address_and_time_and_lets_nobody_be_pushed_out_who_is_known():
    now, refused, pairs = [0.0], [], []

    def arrive(address):
        ours, theirs = socket.socketpair()
        one = Accepted(ours.family, ours.type, ours.proto, ours.detach())
        pairs.append((one, theirs))
        return one, entrance.arrived(one, address)

    entrance = Entrance(
        6,
        4,
        2,
        5.0,
        shared=frozenset({"proxy"}),
        clock=lambda: now[0],
        refused=lambda c, a: refused.append((c, a)),
    )
    known, _ = arrive("a")
    entrance.greeted(known.fileno())
    first, _ = arrive("a")
    arrive("a")
    assert not refused
    arrive("a")
    assert refused == [("handshakes", "a")] and entrance._new.get(first.fileno()) is None
    for _ in range(2):
        arrive("proxy")
    assert len(refused) == 1 and len(entrance._new) == 4
    arrive("b")
    assert refused[-1] == ("handshakes", "a")  # the oldest of all, when there are too many
    assert entrance.open[known.fileno()] is known
    now[0] = 6.0
    entrance.expire()
    assert not entrance._new and not +entrance._from
    for one, theirs in pairs:
        assert theirs.fileno() >= 0
        one.close()
        theirs.close()
    assert not entrance.open


def test_alike_lines_are_counted_instead_of_written(caplog):
    now, log = [0.0], logging.getLogger("rtvc.test.sparing")
    rule = Sparing(lambda: now[0])
    log.addFilter(rule)
    try:
        for index in range(1_000):
            log.warning("refused code=%s address=%s", "control", index)
            log.warning("refused code=%s address=%s", "idle" if index < 3 else "control", index)
        assert caplog.text.count("code=control") == AT_ONCE and caplog.text.count("code=idle") == 3
        now[0] = 10.0
        log.warning("refused code=%s address=%s", "control", "x")
        assert f"(and {2 * 1_000 - 3 - AT_ONCE} like it before)" in caplog.text
    finally:
        log.removeFilter(rule)
