"""What a call says and hears as the protocol sees it: no socket, no peer."""

import json

import numpy as np
import pytest

from rtvc.engine.protocol.formats import opus_library
from rtvc.engine.protocol.frames import DROPPED, END, SILENCE, Frame, parse
from rtvc.engine.protocol.streams import COUNT
from rtvc.engine.webrtc.jitter import BLOCK, RATE, Packet

if opus_library() is None:
    pytest.skip("opuslib or libopus is not installed", allow_module_level=True)

from rtvc.engine.webrtc.media import LONGEST_PAUSE, Media
from rtvc.engine.webrtc.speech import Decoder, Encoder


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self):
        return self.now


def media(sent=lambda name: None):
    clock = Clock()
    return Media(clock, sent), clock


def tone(blocks, hertz=440.0):
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(blocks * BLOCK) / RATE)).astype(np.float32)


def packets(samples):
    encoder = Encoder()
    return [encoder.encode(samples[at : at + BLOCK]) for at in range(0, len(samples), BLOCK)]


def started(one):
    return json.loads(one.say(json.dumps({"type": "started", "format": "f32", "session": "s"})))


def spoken(one, clock, arrivals):
    """Frames of packets (number, ticks, payload) that arrive every 20 ms."""
    frames = []
    for number, ticks, payload in arrivals:
        clock.now = ticks / RATE
        one.inward.buffer.put(number, ticks, payload, clock.now)
        while isinstance(data := one.next(), bytes):
            frames.append(parse(data))
    clock.now += 1.0
    while isinstance(data := one.next(), bytes):
        frames.append(parse(data))
    return frames


def test_packets_become_numbered_frames_with_the_tracks_time():
    one, clock = media()
    assert started(one)["format"] == "opus"
    frames = spoken(one, clock, [(n, n * BLOCK, p) for n, p in enumerate(packets(tone(20)))])
    assert [frame.sequence for frame in frames] == list(range(20))
    assert [frame.timestamp for frame in frames] == [20_000 * n for n in range(20)]
    heard = np.concatenate([np.frombuffer(frame.payload, "<f4") for frame in frames])
    assert len(heard) == 20 * BLOCK and np.abs(heard[5 * BLOCK :]).max() > 0.2


def test_nothing_is_heard_before_a_session_and_after_it():
    one, clock = media()
    sent = packets(tone(9))
    assert spoken(one, clock, [(n, n * BLOCK, sent[n]) for n in range(3)]) == []
    started(one)
    assert len(spoken(one, clock, [(n, n * BLOCK, sent[n]) for n in range(3, 6)])) == 3
    one.say('{"type":"stopped"}')
    assert spoken(one, clock, [(n, n * BLOCK, sent[n]) for n in range(6, 9)]) == []


def test_a_lost_packet_is_made_up_for_and_time_goes_on():
    one, clock = media()
    started(one)
    sent = packets(tone(30))
    frames = spoken(one, clock, [(n, n * BLOCK, sent[n]) for n in range(30) if n != 15])
    assert [frame.timestamp for frame in frames] == [20_000 * n for n in range(30)]
    assert one.inward.decoder.recovered == 1 and not any(frame.flags & DROPPED for frame in frames)


def test_a_copy_is_better_than_a_guess():
    rng = np.random.default_rng(0)
    drift = np.cumsum(rng.standard_normal(100 * BLOCK)) * 0.002 + 2 * np.pi * 150 / RATE
    speech = (0.3 * np.sign(np.sin(np.cumsum(drift)))).astype(np.float32)
    sent = packets(speech)

    def error(lost):
        whole, holey, worst = Decoder(), Decoder(), []
        for n, payload in enumerate(sent[:-1]):
            right = whole.decode(Packet(payload, 0))
            missing = n % 10 == 5
            got = holey.decode(lost(n) if missing else Packet(payload, 0))
            if missing:
                worst.append(np.square(got - right).sum() / np.square(right).sum())
        return np.median(worst)

    copied = error(lambda n: Packet(None, 0, sent[n + 1]))
    assert copied < 0.5 * error(lambda n: Packet(None, 0))


def test_a_pause_of_the_codec_is_silence_and_a_long_one_is_told():
    one, clock = media()
    started(one)
    sent = packets(tone(3))
    long = 10 * BLOCK + 2 * LONGEST_PAUSE
    frames = spoken(one, clock, [(0, 0, sent[0]), (1, 10 * BLOCK, sent[1]), (2, long, sent[2])])
    sizes = [len(frame.payload) // 4 for frame in frames]
    assert sizes == [BLOCK, 10 * BLOCK, BLOCK]
    assert [bool(frame.flags & DROPPED) for frame in frames] == [False, False, True]


@pytest.mark.parametrize("payload", [b"", b"\xff" * 10, b"\x00" * 5_000, bytes(range(256)) * 5])
def test_packets_that_are_none_are_guessed(payload):
    one, clock = media()
    started(one)
    sent = packets(tone(2))
    frames = spoken(one, clock, [(0, 0, sent[0]), (1, BLOCK, payload), (2, 2 * BLOCK, sent[1])])
    assert len(frames) == 3
    assert all(np.isfinite(np.frombuffer(frame.payload, "<f4")).all() for frame in frames)


def test_start_is_of_the_track_whatever_it_says():
    one, _ = media()
    one.hear('{"type":"start","voice":"one","sample_rate":8000,"format":"s16"}')
    message = json.loads(one.next())
    assert (message["sample_rate"], message["output_rate"], message["format"]) == (
        RATE,
        RATE,
        "f32",
    )
    assert message["voice"] == "one"


def test_resume_asks_for_what_was_not_sent_yet():
    one, _ = media({"s": 41}.get)
    one.hear('{"type":"resume","session":"s","key":"k","received":0}')
    one.hear('{"type":"resume","session":"elsewhere","key":"k","received":7}')
    assert json.loads(one.next())["received"] == 41 and json.loads(one.next())["received"] == 7


@pytest.mark.parametrize("text", ["", "[", '"start"', "[1]", "null", "[" * 9_000, '{"type":{}}'])
def test_what_is_no_message_passes_as_it_is(text):
    one, _ = media()
    one.hear(text)
    assert one.next() == text


def test_stop_lets_the_last_words_pass():
    one, clock = media()
    started(one)
    sent = packets(tone(6))
    for n in range(5):
        clock.now = n * 0.02 + (0.04 if n == 2 else 0.0)
        one.inward.buffer.put(n, n * BLOCK, sent[n], clock.now)
        while one.next() is not None:
            pass
    one.hear('{"type":"stop"}')
    assert one.next() is None and one.due() > clock.now + 0.02
    one.inward.buffer.put(5, 5 * BLOCK, sent[5], clock.now)
    assert isinstance(one.next(), bytes)
    clock.now = one.due()
    assert one.next() == '{"type":"stop"}' and one.next() is None


def test_files_keep_their_place_among_messages():
    one, _ = media()
    for data in ("a", b"12", "b"):
        one.hear(data)
    assert one.waiting == 4
    assert [one.next() for _ in range(3)] == ["a", b"12", "b"] and one.waiting == 0


def out(samples, timestamp=0, flags=0):
    return Frame(flags, 2, 0, timestamp, np.asarray(samples, "<f4").tobytes()).to_bytes()


def test_frames_of_any_size_become_packets_of_20_ms():
    one, _ = media()
    x, sizes = tone(10), [100, 2_000, 1_200, 960, 5_340]
    made = []
    for size, at in zip(sizes, np.cumsum([0, *sizes]), strict=False):
        made += one.outward.packets(out(x[at : at + size], round(at * 1e6 / RATE)))
    assert [ticks for ticks, _ in made] == [BLOCK * n for n in range(10)]
    decoder = Decoder()
    heard = np.concatenate([decoder.decode(Packet(payload, 0)) for _, payload in made])
    assert abs(np.abs(np.fft.rfft(heard[RATE // 10 :])).argmax() / 0.1 - 440) < 11


def test_the_end_fills_the_last_packet():
    one, _ = media()
    assert len(one.outward.packets(out(tone(1)[:500]))) == 0
    assert len(one.outward.packets(out(tone(1)[:10], flags=END))) == 1


def test_silent_frames_are_silence():
    one, _ = media()
    silent = Frame(SILENCE | END, 2, 0, 0, COUNT.pack(BLOCK + 1)).to_bytes()
    heard = [Decoder().decode(Packet(payload, 0)) for _, payload in one.outward.packets(silent)]
    assert len(heard) == 2 and max(np.abs(one).max() for one in heard) < 1e-3


def test_what_was_dropped_is_missing_in_time():
    one, _ = media()
    first = one.outward.packets(out(tone(1)))
    later = one.outward.packets(out(tone(1), timestamp=520_000, flags=DROPPED))
    assert later[0][0] - first[0][0] == round(0.52 * RATE)


def test_a_new_session_is_of_now():
    one, clock = media()
    started(one)
    one.outward.packets(out(tone(1)))
    clock.now = 7.0
    started(one)
    assert one.outward.packets(out(tone(1)))[0][0] == 7 * RATE
