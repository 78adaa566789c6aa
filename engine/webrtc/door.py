"""The way in for calls: an offer comes over HTTP, an answer goes back, and what follows is a
connection like any other (after WHIP, RFC 9725).

Nothing of an offer leads anywhere: its candidates are not read, so that nobody can have packets
sent to hosts of their choice. The server waits for the client's own checks, which prove that it
knows the answer, and replies to where they came from.
"""

import asyncio
import contextlib
import logging
import re
from typing import TYPE_CHECKING, Any

from rtvc.engine.protocol.fields import Code
from rtvc.engine.protocol.refusals import Refusal
from rtvc.engine.server import reasons
from rtvc.engine.server.connection import Connection
from rtvc.engine.server.service import Service
from rtvc.engine.webrtc.media import Inward, Media
from rtvc.engine.webrtc.peer import Peer, Tap
from rtvc.engine.webrtc.speech import library
from rtvc.errors import DependencyError, needs_extra

if TYPE_CHECKING:
    from aiortc import RTCPeerConnection

ANSWER_S = 4.0
"""Seconds that making an answer may take."""
OPEN_S = 10.0
"""Seconds from the answer until the data channel is open."""
WATCH_S = 0.25
"""Seconds between two looks at what calls hold."""
SECTIONS = 2
"""Media sections of an offer: one of audio, one for the data channel."""
LINES = 1_000
"""Lines of an offer at most; browsers write some hundred."""
NEEDED = ("ice-ufrag", "ice-pwd", "fingerprint", "setup")
"""Attributes without which no call comes about, which the library finds out only then."""
CANDIDATE = re.compile(r"^a=(candidate:|end-of-candidates).*\r?\n?", re.MULTILINE)
OPUS = re.compile(r"^a=rtpmap:(\d+) opus/48000.*$", re.MULTILINE | re.IGNORECASE)

log = logging.getLogger("rtvc.serve")


def check_webrtc() -> None:
    """Looks for what calls need besides.

    Raises:
        DependencyError: it is not installed.
    """
    library()
    with needs_extra("webrtc", "calls need aiortc"):
        import aiortc  # noqa: F401


class Door:
    """Answers offers, and serves the calls.

    Args:
        service: what is served.

    Attributes:
        peers: calls that are open.
        strangers: of them, those whose client has not said hello, and their addresses.
    """

    def __init__(self, service: Service) -> None:
        check_webrtc()
        self.service = service
        self.peers = set[Peer]()
        self.strangers: dict[Peer, str] = {}
        self._coming = 0
        self._tasks = set[asyncio.Task[None]]()
        self._watching: asyncio.Task[None] | None = None

    async def answer(self, offer: str, address: str) -> str:
        """The answer to an offer, both SDP; the call is served from now on.

        Args:
            offer: with a track of Opus and a data channel; its candidates are not looked at.
            address: of the client.

        Raises:
            Refusal: there is no room, or the offer is none that can be answered.
        """
        self._check_room(address)
        self._coming += 1
        try:
            async with asyncio.timeout(ANSWER_S):
                peer, answer = await self._answer(offer, address)
        except TimeoutError as error:
            raise Refusal(Code.INTERNAL, "no answer could be made in time", fatal=True) from error
        finally:
            self._coming -= 1
        self.peers.add(peer)
        self.strangers[peer] = address
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        task = asyncio.create_task(self._serve(peer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return answer

    def _check_room(self, address: str) -> None:
        limits = self.service.limits
        if self.service.draining:
            raise reasons.draining()
        same = sum(other == address for other in self.strangers.values())
        if (
            len(self.strangers) + self._coming >= limits.calls_coming
            or same >= limits.calls_coming_per_address
            or len(self.peers) + self._coming >= limits.calls
        ):
            raise reasons.full("too many calls are being made", "try again later")

    async def _answer(self, offer: str, address: str) -> tuple[Peer, str]:
        from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

        bare = checked(offer)
        # No servers: by default the library asks a public one where we are.
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        try:
            service = self.service
            media = Media(service.pool.clock, self._sent)
            peer = Peer(connection, address, media, self._greeted)
            try:
                await connection.setRemoteDescription(RTCSessionDescription(bare, "offer"))
                self._join(connection, peer)
                await connection.setLocalDescription(await connection.createAnswer())
            except (DependencyError, Refusal, asyncio.CancelledError):
                raise
            except Exception as error:  # the library checks little, and fails in many ways
                log.info("address=%s an offer failed: %r", address, error)
                raise malformed("it cannot be answered") from error
            return peer, with_copies(connection.localDescription.sdp)
        except BaseException:
            with contextlib.suppress(Exception):
                await connection.close()
            raise

    def _join(self, connection: "RTCPeerConnection", peer: Peer) -> None:
        """Puts our ends of the track in their places: Opus and nothing else, both ways."""
        from aiortc import RTCRtpSender

        calls = connection.getTransceivers()
        if len(calls) != 1 or calls[0].kind != "audio" or connection.sctp is None:
            raise malformed("it has no audio, or no data channel")
        call: Any = calls[0]
        spoken = RTCRtpSender.getCapabilities("audio").codecs
        call.setCodecPreferences([one for one in spoken if one.mimeType.lower() == "audio/opus"])
        call.sender.replaceTrack(peer.track)
        call.direction = "sendrecv"
        Tap(peer.heard).into(call.receiver)

    def _sent(self, name: str) -> int | None:
        session = self.service.sessions.get(name) or self.service.ended.get(name)
        return None if session is None else session.outgoing.sequence

    def _greeted(self, peer: Peer) -> None:
        self.strangers.pop(peer, None)

    async def _serve(self, peer: Peer) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(OPEN_S):
                    await peer.opened.wait()
            if peer.opened.is_set():
                await Connection(self.service, peer).run()
            else:
                self.service.metrics.refusals.labels("handshakes").inc()
                log.warning("refused code=handshakes address=%s", peer.address)
        finally:
            await peer.close()
            self.strangers.pop(peer, None)
            self.peers.discard(peer)
            self._count(peer.media.inward)

    def _count(self, inward: Inward) -> None:
        fates = {
            "received": inward.buffer.received,
            "recovered": inward.decoder.recovered,
            "concealed": inward.decoder.concealed,
        }
        for fate, count in fates.items():
            self.service.metrics.packets.labels(fate).inc(count)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            for peer in list(self.peers):
                peer.check()

    async def close(self) -> None:
        """Ends all calls."""
        if self._watching is not None:
            self._watching.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def malformed(what: str) -> Refusal:
    """The refusal of an offer."""
    advice = "send SDP with one track of Opus and one data channel, see docs/calls.md"
    return Refusal(Code.MALFORMED, f"expected an offer that can be answered: {what}", advice)


def checked(offer: str) -> str:
    """An offer without its candidates.

    Raises:
        Refusal: it is none that can be answered.
    """
    if not offer.startswith("v=0") or offer.count("\n") > LINES:
        raise malformed("it does not begin with `v=0`, or is too long")
    kinds = sorted(line.partition(" ")[0] for line in offer.splitlines() if line[:2] == "m=")
    if len(kinds) != SECTIONS or kinds != ["m=application", "m=audio"]:
        raise malformed(f"its media sections are {', '.join(kinds)[:80] or 'missing'}")
    if any(f"\na={name}:" not in offer for name in NEEDED):
        raise malformed(f"it lacks one of {', '.join(NEEDED)}")
    if not OPUS.search(offer):
        raise malformed("its track is not of Opus")
    return CANDIDATE.sub("", offer)


def with_copies(answer: str) -> str:
    """An answer that asks for a copy of each packet in the next one, and for one channel."""

    def ask(match: "re.Match[str]") -> str:
        line = match.group(0).rstrip("\r")
        return f"{line}\r\na=fmtp:{match.group(1)} minptime=10;useinbandfec=1;stereo=0\r"

    if "useinbandfec" in answer:
        return answer
    return OPUS.sub(ask, answer)
