"""Offers of people who mean no call: too large, of nonsense, without end; and peers who stop half
way. None costs more than was set aside for it."""

import asyncio
import os
import re
import socket

import pytest
from calling import until
from calls import say as spoken
from calls import tone
from serving import served

from rtvc.clients.webrtc.call import call
from rtvc.engine.protocol.refusals import Refusal
from rtvc.engine.server import app
from rtvc.engine.server.posted import LARGEST_BODY, LARGEST_HEAD
from rtvc.engine.webrtc import door as door_module
from rtvc.engine.webrtc.door import Door, checked
from rtvc.errors import ServiceError


def errors(service):
    """That should not happen."""
    return service.metrics.registry.get_sample_value("rtvc_internal_errors_total") or 0


async def offer(extra=None):
    """A right offer and the peer that made it."""
    from aiortc import RTCConfiguration, RTCPeerConnection

    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    peer.addTransceiver("audio")
    peer.createDataChannel("rtvc")
    for kind in extra or ():
        peer.addTransceiver(kind)
    await peer.setLocalDescription(await peer.createOffer())
    return peer, peer.localDescription.sdp


async def exchange(url, data):
    """What a raw request is answered with; nothing if the connection ends."""
    port = int(url.split(":")[2].split("/")[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        async with asyncio.timeout(120):
            return (await reader.read()).decode()
    finally:
        writer.close()


async def posted(url, body, method="POST", path="/v1/webrtc", headers=None, length=None):
    """Status and body of the answer to a request."""
    authority = url.split("//")[1].split("/")[0]
    lines = [f"{method} {path} HTTP/1.1", f"Host: {authority}"]
    lines += [f"Content-Length: {len(body.encode()) if length is None else length}"]
    lines += [f"Origin: http://{authority}"] if headers is None else headers
    answer = await exchange(url, "\r\n".join([*lines, "", ""]).encode() + body.encode())
    head, _, rest = answer.partition("\r\n\r\n")
    return int(head.split(" ")[1]), head, rest


def test_requests_that_are_none_are_refused_before_anything_is_done(tmp_path, doors):
    async def main():
        async with served(tmp_path, webrtc=True) as (service, url):
            assert (await posted(url, "x" * (LARGEST_BODY + 1)))[0] == 413
            assert (await posted(url, "abc", length=2))[0] == 413
            for length in ("-1", "x", "1" * 12, "٣"):
                assert (await posted(url, "", length=length.encode().decode("latin-1")))[0] == 400
            long = [f"X-{n}: {'y' * 100}" for n in range(LARGEST_HEAD // 100)]
            assert (await posted(url, "", headers=long))[0] == 431
            assert (await posted(url, "", path="/v1"))[0] == 404
            assert (await posted(url, "", path="/v2/webrtc"))[0] == 404
            for headers in ([], ["Origin: http://evil.example"], ["Origin: null"]):
                assert (await posted(url, "", headers=headers))[0] == 403
            chunked = ["Transfer-Encoding: chunked"]
            assert (await posted(url, "", headers=chunked))[0] == 400
            for nonsense in (
                b"POST \r\n\r\n",
                b"POST /v1/webrtc\r\n\r\n",
                b"POST  / HTTP/9\r\n\r\n",
            ):
                assert " 400 " in (await exchange(url, nonsense)).splitlines()[0]
            assert not doors[0].peers
            assert errors(service) == 0

    asyncio.run(main())


def test_half_a_request_is_not_waited_for_long(tmp_path, monkeypatch):
    monkeypatch.setattr(app, "OPEN_S", 0.2)

    async def main():
        async with served(tmp_path, webrtc=True) as (_, url):
            assert await exchange(url, b"POST /v1/webrtc HTTP/1.1\r\nHost: ") == ""
            begun = b"POST /v1/webrtc HTTP/1.1\r\nContent-Length: 9\r\n\r\nv"
            assert await exchange(url, begun) == ""

    asyncio.run(main())


def test_what_fails_here_is_said_and_counted(tmp_path, doors, monkeypatch):
    async def broken(self, offer, address):
        raise ZeroDivisionError

    monkeypatch.setattr(Door, "answer", broken)

    async def main():
        async with served(tmp_path, webrtc=True) as (service, url):
            assert (await posted(url, "v=0"))[0] == 500
            assert errors(service) == 1

    asyncio.run(main())


def test_a_server_without_calls_has_no_such_door(tmp_path):
    async def main():
        async with served(tmp_path) as (_, url):
            status, _, text = await posted(url, "v=0")
            assert status == 404 and "--webrtc" in text

    asyncio.run(main())


def test_pages_that_are_let_in_may_offer(tmp_path):
    async def main():
        async with served(tmp_path, webrtc=True) as (_, url):
            origin = "http://" + url.split("//")[1].split("/")[0]
            status, head, _ = await posted(url, "", method="OPTIONS")
            assert status == 204 and f"Access-Control-Allow-Origin: {origin}" in head
            status, head, _ = await posted(
                url, "", method="OPTIONS", headers=["Origin: http://evil.example"]
            )
            assert status == 403 and "Access-Control" not in head

    asyncio.run(main())


SPOILT = [
    lambda sdp: "",
    lambda sdp: "v=0",
    lambda sdp: "hello",
    lambda sdp: sdp[: len(sdp) // 2],
    lambda sdp: sdp.replace("opus/48000", "lopus/48000"),
    lambda sdp: sdp.replace("m=audio", "m=video"),
    lambda sdp: sdp + sdp[sdp.index("m=audio") :],
    lambda sdp: sdp[: sdp.index("m=application")],
    lambda sdp: sdp.replace("a=rtpmap:96 opus/48000/2", "a=rtpmap:96 opus/48000/x"),
    lambda sdp: sdp.replace("UDP/TLS/RTP/SAVPF 96", "UDP/TLS/RTP/SAVPF 999999"),
    lambda sdp: re.sub("a=mid:.*", "a=mid:", sdp),
    lambda sdp: re.sub("a=setup:.*", "a=setup:nobody", sdp),
    lambda sdp: re.sub("a=fingerprint:.*\r\n", "", sdp),
    lambda sdp: re.sub("a=ice-(ufrag|pwd):.*\r\n", "", sdp),
    lambda sdp: re.sub("a=sctp-port:.*", "a=sctp-port:" + "9" * 30, sdp),
    lambda sdp: sdp + "a=x\r\n" * 1_100,
    lambda sdp: sdp.replace("\r\n", "\r\n\0"),
    lambda sdp: sdp[:4_000].encode().decode("utf-16-le", "replace"),
]


def test_offers_of_nonsense_are_refused_or_lead_nowhere(tmp_path, doors, monkeypatch):
    async def main():
        async with served(tmp_path, webrtc=True) as (service, url):
            peer, sdp = await offer()
            with monkeypatch.context() as patch:
                patch.setattr(door_module, "OPEN_S", 0.1)
                for number, spoil in enumerate(SPOILT):
                    status, _, text = await posted(url, spoil(sdp))
                    assert status in (400, 201), (number, text)
                    await until(lambda: not doors[0].peers)  # what was answered is forgotten
            await peer.close()
            assert errors(service) == 0
            async with call(url, "one") as caller:  # and the next one is served
                await spoken(caller, tone(0.1))

    asyncio.run(main())


def test_most_spoilt_offers_are_refused():
    good = "v=0\r\nm=audio 9 X 96\r\na=rtpmap:96 opus/48000/2\r\nm=application 9 Y\r\n"
    good += "".join(f"a={name}:x\r\n" for name in door_module.NEEDED)
    assert checked(good) == good
    assert "candidate" not in checked(good + "a=candidate:1 1 udp 1 10.0.0.1 9 typ host\r\n")
    for bad in (good[3:], good + "m=video 9 X 97\r\n", good.replace("opus", "G722")):
        with pytest.raises(Refusal):
            checked(bad)


def test_nobody_is_sent_a_packet_because_an_offer_names_him(tmp_path, doors, monkeypatch):
    monkeypatch.setattr(door_module, "OPEN_S", 1.0)

    async def main():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as victim:
            peer, sdp = await offer()
            host = re.search(r"candidate:\S+ 1 udp \d+ ([\d.]+) ", sdp)[1]
            victim.bind((host, 0))
            victim.setblocking(False)
            port = victim.getsockname()[1]
            sdp = re.sub(r"(candidate:\S+ 1 udp \d+) \S+ \d+ ", rf"\1 {host} {port} ", sdp)
            assert str(port) in sdp
            async with served(tmp_path, webrtc=True) as (_, url):
                assert (await posted(url, sdp))[0] == 201
                await until(lambda: doors[0].peers)
                await until(lambda: not doors[0].peers)
            with pytest.raises(BlockingIOError):
                victim.recv(2_048)
            await peer.close()

    asyncio.run(main())


def test_offers_that_nobody_follows_are_few_and_forgotten(tmp_path, doors, monkeypatch):
    monkeypatch.setattr(door_module, "OPEN_S", 0.3)

    async def main():
        async with served(tmp_path, webrtc=True, calls_coming=4) as (service, url):
            peer, sdp = await offer()
            before = len(os.listdir("/proc/self/fd"))
            answers = await asyncio.gather(*[posted(url, sdp) for _ in range(20)])
            statuses = [status for status, _, _ in answers]
            assert statuses.count(201) == 4 and statuses.count(503) == 16
            assert '"full"' in next(text for status, _, text in answers if status == 503)
            await until(lambda: not doors[0].peers)
            await until(lambda: len(os.listdir("/proc/self/fd")) <= before)
            assert (
                service.metrics.registry.get_sample_value(
                    "rtvc_refusals_total", {"code": "handshakes"}
                )
                == 4
            )
            await peer.close()

    asyncio.run(main())


def test_one_address_cannot_take_all_places_of_calls(tmp_path, doors, monkeypatch):
    monkeypatch.setattr(door_module, "OPEN_S", 0.3)

    async def main():
        async with served(tmp_path, webrtc=True, calls_coming_per_address=2) as (_, url):
            peer, sdp = await offer()
            statuses = [(await posted(url, sdp))[0] for _ in range(3)]
            assert statuses == [201, 201, 503]
            await peer.close()

    asyncio.run(main())


def test_a_peer_that_never_says_hello_is_put_out(tmp_path, doors):
    async def main():
        async with served(tmp_path, webrtc=True, hello_s=0.3) as (service, url):
            caller = call(url)
            caller.side.hello = lambda token: ""
            with pytest.raises(ServiceError):
                async with caller:
                    pass
            await until(lambda: not doors[0].peers and not service.connections)

    asyncio.run(main())


def test_who_floods_the_data_channel_is_cut_off(tmp_path, doors):
    async def main():
        async with served(tmp_path, webrtc=True) as (service, url):
            async with call(url, "one") as caller:
                for _ in range(40):
                    caller._channel.send("x" * 60_000)
                await until(lambda: not doors[0].peers and not service.connections, 20)
            async with call(url, "one") as caller:
                await spoken(caller, tone(0.1))

    asyncio.run(main())


def test_a_message_without_an_end_is_not_kept(tmp_path, doors):
    async def main():
        serving = served(tmp_path, webrtc=True)
        async with serving as (service, url), call(url, "one") as caller:
            sctp = caller._connection.sctp
            sctp._remote_max_message_size = 0  # no limit: what a client of ours never does
            caller._channel.send(b"x" * (8 << 20))
            await until(lambda: not doors[0].peers and not service.connections, 30)
            assert sctp._outbound_queue or sctp._sent_queue  # before all of it was there

    asyncio.run(main())


def test_a_second_data_channel_is_closed(tmp_path):
    async def main():
        async with served(tmp_path, webrtc=True) as (_, url), call(url, "one") as caller:
            second = caller._connection.createDataChannel("more")
            await until(lambda: second.readyState == "closed")
            assert await caller.voices()

    asyncio.run(main())
