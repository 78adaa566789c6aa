"""Hostile frames, and what must hold whatever comes. As a program (`make fuzz`) it goes on for
longer, guided by coverage where atheris is installed: `python tests/support/fuzzing.py [FRAMES]
[SECONDS OF ATHERIS]`.
"""

import asyncio
import contextlib
import random
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import websockets.exceptions
from calling import Client, noise
from hostile_messages import TYPES, WELCOME, Hostile
from serving import served

from rtvc.engine.protocol import (
    client_side,
    formats,
    frames,
    refusals,
    server_side,
    streams,
    upload,
)
from rtvc.engine.protocol.client_side import ClientSide
from rtvc.engine.protocol.messages import Error, Start
from rtvc.engine.protocol.refusals import Violation
from rtvc.engine.protocol.server_side import Phase, ServerSide
from rtvc.engine.protocol.streams import Audio, Incoming
from rtvc.engine.protocol.upload import Uploaded


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
        wanted = server.incoming.expected if server.incoming else None
        event = server.receive(frame)
        if isinstance(event, Violation):
            assert isinstance(event.error, Error) and len(event.error.text()) < 1_000
            assert event.error.fatal == (server.phase is Phase.CLOSED)
            assert (
                wanted is None or server.incoming.expected == wanted
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


def instrumented(instrument):
    """Lets coverage be seen inside everything that takes frames apart; returns how many functions
    that are."""
    seen = []

    def watched(function):
        seen.append(function)
        return instrument(function)

    for module in (client_side, formats, frames, refusals, server_side, streams, upload):
        for kind in [
            kind
            for kind in vars(module).values()
            if isinstance(kind, type) and kind.__module__ == module.__name__
        ]:
            for name, method in list(vars(kind).items()):
                if callable(method) and hasattr(method, "__code__"):
                    setattr(kind, name, watched(method))
    parse, read_message = watched(frames.parse), watched(refusals.read_message)
    for side in (client_side, server_side):
        side.parse, side.read_message = parse, read_message
    return len(seen)


def guided(atheris, seconds):
    """Lets it look for frames that break the core; never returns."""
    instrumented(atheris.instrument_func)

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
        import atheris
    except ImportError:
        print("atheris is not installed (pip install 'rtvc-engine[fuzz]'): no guided run")
    else:
        guided(atheris, seconds)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
