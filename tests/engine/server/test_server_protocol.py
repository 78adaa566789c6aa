"""The protocol without sockets: both ends understand each other, and refuse what is not of the
protocol."""

import json
import re

import numpy as np
import pytest
from calling import noise
from hostile_messages import LIMITS as ONES
from pydantic import SecretStr

from rtvc.engine.protocol.client_side import ClientSide
from rtvc.engine.protocol.fields import LARGEST_FRAME, LARGEST_TEXT, Code
from rtvc.engine.protocol.formats import codec, offered, opus_library
from rtvc.engine.protocol.frames import HEADER, Flag, Frame, parse
from rtvc.engine.protocol.messages import (
    Hello,
    Ping,
    Resume,
    Resumed,
    Start,
    Started,
    Stop,
    Stopped,
    Upload,
    Welcome,
)
from rtvc.engine.protocol.refusals import Violation
from rtvc.engine.protocol.server_side import Phase, ServerSide
from rtvc.engine.protocol.streams import Audio, Incoming, Outgoing, SequenceError
from rtvc.engine.protocol.upload import Uploaded
from rtvc.errors import ProtocolError

LIMITS = ONES.model_copy(update={"resume_ms": 10_000})
WELCOME = Welcome(server="test", formats=offered(), limits=LIMITS, chunk_ms=25, latency_ms=62.5)


def live(format="f32", rate=24_000):
    """A client and a server in a session."""
    client, server = ClientSide("test"), ServerSide(1_000_000)
    server.receive(client.hello())
    client.receive(server.send(WELCOME))
    server.receive(client.start(Start(sample_rate=rate, format=format, voice="anna")))
    server.attach(Incoming(format, rate))
    started = Started(
        session="s1",
        key=SecretStr("k1"),
        sample_rate=rate,
        output_rate=rate,
        format=format,
        voice="anna",
        latency_ms=62.5,
    )
    client.receive(server.send(started))
    return client, server


def code(event):
    assert isinstance(event, Violation), event
    return event.error.code, event.error.fatal


def test_a_conversation_from_hello_to_stopped():
    client, server = live()
    x = noise(480)
    audio = server.receive(client.audio(x, 5))
    np.testing.assert_array_equal(audio.samples, x)
    assert (audio.timestamp, audio.sequence, audio.end) == (5, 0, False)
    back = Outgoing("f32", 24_000)
    np.testing.assert_array_equal(client.receive(back.frame(-x, 5)).samples, -x)
    assert isinstance(server.receive(client.stop()), Stop) and server.phase is Phase.STOPPING
    last = client.receive(back.frame(np.zeros(0, np.float32), 25, end=True))
    assert last.end and last.sequence == 1 and not len(last.samples)
    assert isinstance(client.receive(server.send(Stopped(samples_in=480))), Stopped)
    assert server.phase is Phase.IDLE and client.outgoing is None
    assert isinstance(
        server.receive(client.start(Start(sample_rate=24_000, voice={"a": 1, "b": 0.5}))), Start
    )


def test_a_token_is_sent_but_never_shown():
    text = ClientSide("x").hello("very secret")
    hello = ServerSide(1).receive(text)
    assert "very secret" in text and hello.token.get_secret_value() == "very secret"
    assert "secret" not in repr(hello) + str(hello)
    resume = Resume(session="s", key=SecretStr("hidden"), received=0)
    assert "hidden" in resume.text() and "hidden" not in repr(resume)


def test_unknown_fields_are_ignored_and_unknown_types_are_refused_politely():
    _, server = live()
    assert server.receive('{"type":"ping","id":3,"later":{"x":[1]}}') == Ping(id=3)
    refused = server.receive('{"type":"dance"}')
    assert code(refused) == (Code.UNKNOWN_TYPE, False) and "protocol.md" in refused.error.advice
    assert isinstance(server.receive('{"type":"ping"}'), Ping)


MALFORMED = """
{ | [] | null | 7 | "ping" | {} | {"type":"update","pitch":NaN} |
{"type":"update","wet":2} | {"type":"ping","id":1e400}
{"type":"ping","id":true} | {"type":"upload","name":"x","size":-1,"sha256":"0"}
{"type":"update","voice":{}} | {"type":"update","voice":{"a":-1}}
"""


@pytest.mark.parametrize("text", ["", "[" * 9000, *re.split(r" \| |\n", MALFORMED.strip())])
def test_malformed_messages_are_refused(text):
    _, server = live()
    assert code(server.receive(text)) == (Code.MALFORMED, False)


def test_every_phase_refuses_what_has_no_meaning_in_it():
    fresh = ServerSide(1)
    assert code(fresh.receive('{"type":"ping"}')) == (Code.UNEXPECTED, True)
    assert (
        fresh.receive('{"type":"hello","version":1}') is None
    )  # nothing is heard after a fatal error
    assert code(ServerSide(1).receive('{"type":"hello","version":2}')) == (Code.VERSION, True)
    assert code(ServerSide(1).receive(b"\x01" * 20)) == (Code.UNEXPECTED, True)
    client, server = live()
    assert code(server.receive(client.start(Start(sample_rate=24_000, voice="x")))) == (
        Code.UNEXPECTED,
        False,
    )
    assert code(server.receive(client.hello())) == (Code.UNEXPECTED, True)
    idle = ServerSide(1)
    idle.receive(client.hello())
    idle.send(WELCOME)
    assert code(idle.receive('{"type":"stop"}')) == (Code.UNEXPECTED, False)
    assert code(idle.receive(Outgoing("s16", 24_000).frame(noise(4), 0))) == (
        Code.UNEXPECTED,
        False,
    )


HEADERS = [(2, 0, 2, 0, 0), (1, 16, 2, 0, 0), (1, 0, 9, 0, 0), (1, 1, 2, 0, 0), (1, 0, 2, 0, 2**63)]
PAYLOADS = [
    (0, 1, b"ab"),
    (0, 2, b"abc"),
    (0, 2, b""),
    (0, 2, np.float32("nan").tobytes()),
    (0, 2, bytes(4 * 24_001)),
    (8, 2, b"\xff" * 4),
    (8, 2, b"abc"),
]
BAD_FRAMES = [HEADER.pack(*header) + b"abcd" for header in HEADERS] + [
    HEADER.pack(1, flags, f, 0, 0) + data for flags, f, data in PAYLOADS
]


@pytest.mark.parametrize("data", [b"", b"\x01", *BAD_FRAMES])
def test_bad_frames_end_the_connection(data):
    _, server = live()
    assert code(server.receive(data)) == (Code.BAD_FRAME, True)
    assert server.receive('{"type":"ping"}') is None


def test_frames_and_texts_above_the_limits_are_refused():
    _, server = live()
    assert code(server.receive(bytes(LARGEST_FRAME + 1))) == (Code.TOO_LARGE, True)
    _, server = live()
    assert code(server.receive(" " * (LARGEST_TEXT + 1))) == (Code.TOO_LARGE, True)


def test_a_gap_is_refused_and_a_repetition_is_ignored():
    client, server = live()
    first, second, third = (client.audio(noise(4), i) for i in range(3))
    assert isinstance(server.receive(first), Audio) and server.receive(first) is None
    assert code(server.receive(third)) == (Code.BAD_SEQUENCE, True)
    assert isinstance(server.incoming.accept(parse(second)), Audio)  # the session itself is unhurt


def test_samples_outside_full_scale_are_limited():
    _, server = live()
    loud = Frame(Flag(0), 2, 0, 0, np.array([1e38, -7, 0.5], "<f4").tobytes()).to_bytes()
    np.testing.assert_array_equal(server.receive(loud).samples, [1, -1, 0.5])


def test_an_upload_arrives_whole_or_not_at_all():
    client, server = live()
    data = np.random.default_rng(0).bytes(150_000)
    events = [server.receive(frame) for frame in client.upload("anna", data)]
    assert (
        isinstance(events[0], Upload)
        and events[1:-1] == [None] * 2
        and events[-1] == Uploaded("anna", data)
    )
    frames = list(client.upload("anna", data))
    events = [
        server.receive(frame) for frame in [frames[0], frames[1], frames[2], frames[3][:-1] + b"x"]
    ]
    assert code(events[-1]) == (Code.BAD_UPLOAD, False)
    assert code([server.receive(frame) for frame in [frames[0], frames[2]]][-1]) == (
        Code.BAD_SEQUENCE,
        True,
    )


def test_uploads_that_are_too_large_or_refused_are_thrown_away():
    client, server = live()
    server.largest_upload = 100_000
    events = [server.receive(frame) for frame in client.upload("anna", bytes(150_000))]
    assert code(events[0]) == (Code.TOO_LARGE, False) and events[1:] == [None] * 3
    frames = list(client.upload("anna", bytes(90_000)))
    server.receive(frames[0])
    server.discard_upload()
    assert [server.receive(frame) for frame in frames[1:]] == [None, None]
    more = json.loads(frames[0]) | {"size": 3}
    server.receive(json.dumps(more))
    assert code(server.receive(frames[1])) == (Code.BAD_UPLOAD, True)


def test_a_lost_connection_is_resumed_without_losing_a_frame():
    client, server = live()
    incoming, back = server.incoming, Outgoing("f32", 24_000)
    sent = [client.audio(noise(240, i), 10_000 * i) for i in range(6)]
    for frame in sent[:2]:
        server.receive(frame)
    outputs = [back.frame(noise(240, i), 0) for i in range(5)]
    got = [client.receive(outputs[0])]
    stop = client.stop()
    server = ServerSide(1)  # a new connection
    server.receive(client.hello())
    client.receive(server.send(WELCOME))
    resume = server.receive(client.resume())
    assert (resume.session, resume.key.get_secret_value(), resume.received) == ("s1", "k1", 1)
    server.attach(incoming)
    resumed = client.receive(server.send(Resumed(session="s1", wanted=incoming.expected)))
    again = client.again(resumed)
    assert again == [*sent[2:], stop]
    heard = [server.receive(frame) for frame in again]
    assert [audio.sequence for audio in heard[:-1]] == [2, 3, 4, 5] and isinstance(heard[-1], Stop)
    got += [client.receive(frame) for frame in back.again(resume.received)]
    assert [audio.sequence for audio in got] == [0, 1, 2, 3, 4]


def test_what_is_kept_for_resending_is_bounded():
    outgoing = Outgoing("s16", 24_000, keep=1.0)
    for _ in range(100):
        outgoing.frame(noise(480), 0)
    assert outgoing.first == 50 and len(outgoing.again(50)) == 50
    for wanted in (49, 101):
        with pytest.raises(SequenceError, match="start a new session"):
            outgoing.again(wanted)
    outgoing.forget(90)
    assert outgoing.first == 90 and outgoing.again(100) == []


def test_silent_frames_carry_a_count():
    outgoing, incoming = Outgoing("s16", 24_000), Incoming("s16", 24_000)
    frame = outgoing.frame(np.zeros(600, np.float32), 7, silence=True, dropped=True)
    audio = incoming.accept(parse(frame))
    assert (
        len(frame) == 20 and len(audio.samples) == 600 and not audio.samples.any() and audio.dropped
    )


def test_pcm_survives_a_round_trip():
    x = np.arange(-32768, 32768).astype(np.float32) / 32768
    np.testing.assert_array_equal(codec("s16", 24_000).decode(codec("s16", 24_000).encode(x)), x)
    np.testing.assert_array_equal(codec("f32", 24_000).decode(codec("f32", 24_000).encode(x)), x)


@pytest.mark.skipif(opus_library() is None, reason="libopus or opuslib is not installed")
def test_opus_keeps_the_sound_and_refuses_junk():
    coder = codec("opus", 24_000)
    x = np.sin(np.arange(24_000) * 0.1).astype(np.float32) * 0.3
    packets = [coder.encode(x[i : i + 480]) for i in range(0, 24_000, 480)]
    y = np.concatenate([coder.decode(packet) for packet in packets])
    assert len(y) == 24_000 and sum(map(len, packets)) < 12_000
    assert max(
        np.correlate(y[2_000:22_000], x[2_000 - lag : 22_000 - lag])[0] for lag in range(400)
    ) > 0.9 * np.sum(x[2_000:22_000] ** 2)
    for junk in (b"", b"\xff" * 50, bytes(5_000)):
        with pytest.raises(ProtocolError):
            coder.decode(junk)
    with pytest.raises(ProtocolError, match="44100"):
        codec("opus", 44_100)
    with pytest.raises(ProtocolError, match="481 samples"):
        coder.encode(x[:481])


def test_the_clients_end_refuses_what_a_strange_server_sends():
    client, _ = live()
    assert code(client.receive('{"type":"hello","version":1}')) == (Code.UNKNOWN_TYPE, False)
    assert code(client.receive(b"junk")) == (Code.BAD_FRAME, True)
    fresh = ClientSide("x")
    assert code(fresh.receive(bytes(16))) == (Code.UNEXPECTED, False)
    with pytest.raises(ProtocolError, match="no session"):
        fresh.resume()
    with pytest.raises(ProtocolError, match="started"):
        fresh.audio(noise(4), 0)
    assert isinstance(ServerSide(1).receive(fresh.hello()), Hello)
