"""Hostile frames, and what must hold whatever comes. As a program (`make fuzz`) it goes on for
longer, guided by coverage where atheris is installed: `python tests/support/fuzzing.py [FRAMES]
[SECONDS OF ATHERIS]`.
"""

import asyncio
import contextlib
import json
import random
import string
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import websockets.exceptions
from calling import Client, noise
from serving import served

from rtvc.engine.protocol.client_side import ClientSide
from rtvc.engine.protocol.frames import HEADER
from rtvc.engine.protocol.messages import Error, Limits, Start, Welcome, schema
from rtvc.engine.protocol.refusals import Violation
from rtvc.engine.protocol.server_side import Phase, ServerSide
from rtvc.engine.protocol.streams import Audio, Incoming
from rtvc.engine.protocol.upload import Uploaded

LIMITS = Limits(
    frame_bytes=1,
    upload_bytes=1,
    upload_seconds=1,
    frames_per_second=1,
    messages_per_second=1,
    idle_ms=1,
    resume_ms=1,
)
WELCOME = Welcome(
    server="fuzzed", formats=("s16", "f32"), limits=LIMITS, chunk_ms=25, latency_ms=60
)
TYPES = sorted({str(entry["properties"]["type"]["const"]) for entry in schema().values()})
FIELDS = sorted({name for entry in schema().values() for name in entry["properties"]})
VALUES = [
    None,
    True,
    0,
    -1,
    1,
    2**31,
    2**64,
    -(2**70),
    1.5,
    1e308,
    "",
    "one",
    "../one",
    "f32",
    "opus",
    "x" * 5_000,
    [],
    [1] * 50,
    {},
    {"one": 1},
    {"a": {"b": []}},
]
TEXTS = [
    "",
    "{",
    "[]",
    "null",
    "\x00",
    '{"type":"ping","id":1e999}',
    "[" * 5_000,
    '{"a":' * 500,
    '"\\ud800"',
    '{"type":"ping"}{"type":"ping"}',
    "NaN",
]


class Hostile:
    """Frames that somebody might send who means no good, or whose program is broken.

    Args:
        source: of chance: `random.Random`, or anything else with its `random`, `randrange` and
            `randbytes`.
        wildness: the share of frames that may well be the connection's last.
    """

    def __init__(self, source, wildness=1.0):
        self.chance, self.wildness = source, wildness
        self.sequence = 0
        self.sent = []

    def pick(self, options):
        return options[self.chance.randrange(len(options))]

    def frame(self):
        """The next frame, text or bytes."""
        wild = [
            self.message,
            self.message,
            self.text,
            self.audio,
            self.audio,
            self.audio,
            self.binary,
            self.upload,
            self.mutated,
        ]
        frame = self.pick(
            wild
            if self.chance.random() < self.wildness
            else [self.mild, self.text, self.right, self.right]
        )()
        self.sent = [*self.sent[-20:], frame]
        return frame

    def message(self):
        """A control message of known types and fields, with values that may be absurd."""
        kind = self.pick(
            [
                "start",
                "update",
                "upload",
                "ping",
                "stats",
                "stop",
                "voices",
                "resume",
                "hello",
                *TYPES,
            ]
        )
        known = {
            "start": {"sample_rate": 24_000, "voice": "one", "format": self.pick(["s16", "f32"])},
            "upload": {"name": "x", "size": 8, "sha256": "0" * 64},
            "resume": {"session": "x", "key": "y", "received": 0},
            "hello": {"version": 1},
        }.get(kind, {})
        for _ in range(self.chance.randrange(4) if self.chance.random() < 0.5 else 0):
            known[self.pick(FIELDS)] = self.pick(VALUES)
        return json.dumps(
            {"type": kind}
            | {
                name: value
                for name, value in known.items()
                if name != "type" or self.chance.random() < 0.3
            }
        )

    def mild(self):
        """A message that can be forgiven at any time."""
        field, value = (
            self.pick([name for name in FIELDS if name not in ("type", "version")]),
            self.pick(VALUES),
        )
        return json.dumps(
            {"type": self.pick(["update", "ping", "stats", "voices", "dance"]), field: value}
        )

    def right(self):
        """Audio without a fault."""
        self.sequence += 1
        payload = np.full(
            1 + self.chance.randrange(300), self.chance.random() - 0.5, "<f4"
        ).tobytes()
        return HEADER.pack(1, 0, 2, self.sequence - 1, 10_000 * self.sequence) + payload

    def text(self):
        if self.chance.random() < 0.5:
            return self.pick(TEXTS)
        return "".join(
            self.pick(string.printable + "é\u2028\U0001f600")
            for _ in range(self.chance.randrange(60))
        )

    def audio(self):
        """Audio that may well be right: then the next one goes deeper."""
        at = self.sequence if self.chance.random() < 0.9 else self.chance.randrange(2**32)
        self.sequence += 1
        format = 2 if self.chance.random() < 0.8 else self.chance.randrange(5)
        count = self.chance.randrange(500)
        payload = np.full(count, self.pick([0.0, 0.5, -2.0, 3e38]), "<f4").tobytes()
        flags = 0 if self.chance.random() < 0.9 else self.chance.randrange(256)
        return (
            HEADER.pack(
                1,
                flags,
                format,
                at,
                self.chance.randrange(2**64) if self.chance.random() < 0.3 else 20_000 * at,
            )
            + payload
        )

    def upload(self):
        return HEADER.pack(
            1, self.pick([1, 1, 3]), 0, self.chance.randrange(3), 0
        ) + self.chance.randbytes(self.chance.randrange(20))

    def binary(self):
        return self.chance.randbytes(self.chance.randrange(64))

    def mutated(self):
        """Something sent before: again, cut short, or with a few bits the other way round."""
        if not self.sent:
            return b""
        frame = self.pick(self.sent)
        data = bytearray(frame.encode("utf-8", "replace") if isinstance(frame, str) else frame)
        if data and self.chance.random() < 0.7:
            if self.chance.random() < 0.5:
                del data[self.chance.randrange(len(data)) :]
            for _ in range(self.chance.randrange(4) if data else 0):
                data[self.chance.randrange(len(data))] ^= 1 << self.chance.randrange(8)
        return bytes(data).decode("utf-8", "replace") if isinstance(frame, str) else bytes(data)


def core(source, frames):
    """Sends so many hostile frames to both ends without a socket; they may refuse, and nothing
    else. Returns what came of them."""
    counts = {"refused": 0, "fatal": 0, "heard": 0, "nothing": 0}
    hostile, server, client = Hostile(source), None, None
    for _ in range(frames):
        if server is None or server.phase is Phase.CLOSED:
            hostile.sequence, server, client = 0, ServerSide(1_000), ClientSide("fuzz")
            if source.random() < 0.95:
                server.receive(client.hello())
                server.send(WELCOME)
            if source.random() < 0.8:
                server.attach(Incoming("f32", 24_000))
                client.incoming = Incoming("f32", 24_000)
        frame = hostile.frame()
        wanted = server.incoming.wanted if server.incoming else None
        event = server.receive(frame)
        if isinstance(event, Violation):
            assert isinstance(event.error, Error) and len(event.error.text()) < 1_000
            assert event.error.fatal == (server.phase is Phase.CLOSED)
            assert (
                wanted is None or server.incoming.wanted == wanted
            )  # what is refused changes nothing
            counts["fatal" if event.error.fatal else "refused"] += 1
        elif isinstance(event, Audio):
            assert np.abs(event.samples).max(initial=0) <= 1 and event.sequence == wanted
            counts["heard"] += 1
        else:
            assert event is None or isinstance(event, Uploaded) or event.type in TYPES
            counts["nothing" if event is None else "heard"] += 1
        if isinstance(event, Start):
            server.attach(Incoming("f32", 24_000))
            hostile.sequence = 0
        answer = client.receive(frame)
        assert answer is None or isinstance(answer, Violation | Audio) or answer.type in TYPES
        if isinstance(answer, Violation) and answer.error.fatal:
            client.incoming = Incoming("f32", 24_000)
    return counts


async def attack(url, source, enough):
    """Opens connections and sends hostile frames over them until `enough()`."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed

    origin = url.replace("ws", "http", 1).removesuffix("/v1")
    while not enough():
        hostile = Hostile(source, wildness=source.choice([0.02, 0.02, 0.3, 1.0]))
        try:
            async with connect(url, origin=origin, compression=None, close_timeout=0.2) as socket:
                if source.random() < 0.95:
                    await socket.send('{"type":"hello","version":1}')
                    await socket.recv()
                    if source.random() < 0.8:
                        await socket.send(
                            '{"type":"start","sample_rate":24000,"voice":"one","format":"f32"}'
                        )
                        await socket.recv()
                drain = asyncio.create_task(empty(socket))
                for index in range(source.randrange(200)):
                    await socket.send(hostile.frame())
                    if index % 8 == 7:
                        await asyncio.sleep(0)  # lets it hear that it was thrown out
                drain.cancel()
        except ConnectionClosed:
            pass


async def empty(socket):
    """Reads and forgets."""
    with contextlib.suppress(websockets.exceptions.ConnectionClosed):
        async for _ in socket:
            pass


async def live(folder, frames, attackers=4, seed=0):
    """Attacks a server until it has taken in so many hostile frames, while one calm client speaks,
    who must not notice."""
    sys.setswitchinterval(0.001)  # as the server's program does
    handled, sides, limits = (
        [0],
        [0],
        {
            "messages_per_second": 1e6,
            "frames_per_second": 1e6,
            "mistakes": 10**9,
            "uploads_per_minute": 1e6,
        },
    )

    class Counting(ServerSide):
        def __init__(self, largest):
            super().__init__(largest)
            self.calm = not sides[0]  # the first connection is the calm client's
            sides[0] += 1

        def receive(self, data):
            handled[0] += self.phase is not Phase.CLOSED and not self.calm
            return super().receive(data)

    with mock.patch("rtvc.engine.server.dialogue.ServerSide", Counting):
        async with (
            served(folder, rows=40, sessions=40, resume_s=0.2, **limits) as (service, url),
            Client(url) as calm,
        ):
            await calm.start()
            x, at, began = noise(24_000 * 900, seed), 0, time.perf_counter()
            attacks = [
                asyncio.create_task(
                    attack(url, random.Random(seed + i), lambda: handled[0] >= frames)
                )
                for i in range(attackers)
            ]
            while not all(task.done() for task in attacks) or at < 24_000:
                await calm.speak(x[at : at + 2_400], block=480)
                at += 2_400
                await asyncio.sleep(max(0.0, began + at / 24_000 - time.perf_counter()))
            await asyncio.gather(*attacks)
            stopped = await calm.stop()
            np.testing.assert_array_equal(calm.samples(), x[:at])
            assert service.metrics.registry.get_sample_value("rtvc_internal_errors_total") == 0
            for _ in range(100):  # whoever broke off is given a moment
                if not service.sessions and not service.uploads.under_way:
                    break
                await asyncio.sleep(0.05)
            assert (
                len(service.sessions),
                len(service.pool.sessions),
                service.uploads.under_way,
            ) == (0, 0, 0)
            seconds = time.perf_counter() - began
            return {
                "frames": handled[0],
                "connections": sides[0],
                "seconds": seconds,
                "calm_lag_p99_ms": stopped.lag_p99_ms,
            }


class Bytes:
    """Chance that comes from given bytes, so that a fuzzer can steer it; zeros when they are used
    up."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def randbytes(self, count):
        found = self.data[self.at : self.at + count]
        self.at += count
        return found.ljust(count, b"\0")

    def randrange(self, end):
        return int.from_bytes(self.randbytes(-(-(end - 1).bit_length() // 8))) % end

    def random(self):
        return self.randrange(256) / 256


def guided(seconds):
    """Lets atheris look for frames that break the core; never returns."""
    import atheris

    from rtvc.engine.protocol import formats, frames, streams
    from rtvc.engine.protocol import refusals as reading
    from rtvc.engine.protocol import sides as protocol

    for module in (formats, frames, protocol, reading, streams):
        for kind in [
            found
            for found in vars(module).values()
            if isinstance(found, type) and found.__module__ == module.__name__
        ]:
            for name, method in list(vars(kind).items()):
                if callable(method) and hasattr(method, "__code__"):
                    setattr(kind, name, atheris.instrument_func(method))
    protocol.parse, protocol.read_message = (
        atheris.instrument_func(frames.parse),
        atheris.instrument_func(reading.read_message),
    )

    def one(data):
        core(Bytes(data), 1 + len(data) // 16)

    atheris.Setup(
        [
            sys.argv[0],
            f"-max_total_time={seconds}",
            "-max_len=2048",
            "-verbosity=1",
            "-print_final_stats=1",
        ],
        one,
    )
    atheris.Fuzz()


def main(frames=100_000, seconds=60):
    """Everything, for as long as asked."""
    began = time.perf_counter()
    print(
        f"core: {frames} frames, {core(random.Random(0), frames)},"
        f" {time.perf_counter() - began:.1f} s"
    )
    with tempfile.TemporaryDirectory() as folder:
        print(f"live: {frames} frames, {asyncio.run(live(Path(folder), frames))}")
    try:
        guided(seconds)
    except ImportError:
        print("atheris is not installed (pip install 'rtvc-engine[fuzz]'): no guided run")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
