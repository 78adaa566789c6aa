"""Messages of the streaming protocol as a hostile client would write them, from a random stream."""

import json
import string

import numpy as np

from rtvc.engine.protocol.frames import HEADER
from rtvc.engine.protocol.messages import Limits, Welcome, schema

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
