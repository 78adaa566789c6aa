"""One engine a process, and one step for a block that several chunks fill."""

import gc
import threading

import numpy as np
import psutil
from converters import TestVoice, TinyConverter

import rtvc
from rtvc.engine import shared as sharing
from rtvc.engine.backends.eager import TorchBackend
from rtvc.engine.shared import shared
from rtvc.engine.streams.session import Session
from rtvc.engine.trial import probe


class Counting(TorchBackend):
    """Remembers how long its steps were."""

    def __init__(self, converter, chunk):
        super().__init__(converter, chunk)
        self.lengths = []

    def step(self, x, voice, state):
        self.lengths.append((x.shape[0], x.shape[-1]))
        return super().step(x, voice, state)


def test_streams_of_a_kind_share_an_engine_and_the_last_one_closes_it():
    converter = TinyConverter().eval()
    first = shared(converter, "torch-eager", 300)
    assert shared(converter, "torch-eager", 300) is first
    assert shared(converter, "torch-eager") is first, "a hop is what a stream takes by default"
    assert shared(converter, "torch-eager", 600) is not first
    assert shared(TinyConverter().eval(), "torch-eager", 300) is not first
    del first
    gc.collect()
    assert not sharing._OPEN[converter]


def test_a_stream_that_opens_later_takes_what_took_over():
    converter = TinyConverter().eval()
    first = shared(converter, "torch-eager", 300)
    better = first.successor = TorchBackend(converter, 300)
    assert shared(converter, "torch-eager", 300) is better
    session = Session(first, TestVoice(1))
    session.push(np.zeros(300, np.float32))
    assert session.backend is better


def test_auto_begins_once_for_all_streams_and_its_finds_are_shared(monkeypatch):
    converter, begun = TinyConverter().eval(), []

    class Search:
        """A search that is told what it found."""

        def start(self):
            begun.append(self)

    def begin(model, name, chunk):
        return TorchBackend(model, chunk or 600), Search()

    monkeypatch.setattr(sharing, "begin", begin)
    streams = [Session(shared(converter, "auto"), TestVoice(seed)) for seed in range(3)]
    assert len(begun) == 1 and len({id(stream.backend) for stream in streams}) == 1
    better = TorchBackend(converter, 600)
    begun[0].prepare(better)
    streams[0].backend.successor = better
    for stream in streams:
        stream.push(np.zeros(600, np.float32))
    gc.collect()
    assert shared(converter, "auto") is better and len(begun) == 1


def test_streams_in_threads_of_their_own_do_not_disturb_each_other():
    converter = TinyConverter(width=64).eval()
    x = probe(300, 40).flatten().numpy()
    wanted = [Session(TorchBackend(converter, 300), TestVoice(seed)).push(x) for seed in range(3)]
    heard = [[] for _ in range(3)]

    def speak(seed):
        stream = Session(shared(converter, "torch-eager", 300), TestVoice(seed))
        for start in range(0, len(x), 240):
            heard[seed].append(stream.push(x[start : start + 240]))

    threads = [threading.Thread(target=speak, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for parts, want in zip(heard, wanted, strict=True):
        np.testing.assert_allclose(np.concatenate(parts), want, atol=1e-6)


def test_another_stream_costs_less_than_six_megabytes():
    """The shipped model; the first stream pays for the engine."""
    vc = rtvc.load()
    voice = vc.voice("examples/reference.flac")
    block = np.zeros(1200, np.float32)
    process, streams = psutil.Process(), []
    for _ in range(2):
        streams.append(vc.stream(voice, sample_rate=48_000))
        streams[-1].push(block)
    gc.collect()
    before, more = process.memory_info().rss, 12
    for _ in range(more):
        streams.append(vc.stream(voice, sample_rate=48_000))
        streams[-1].push(block)
    assert (process.memory_info().rss - before) / more < 6e6
    assert len({id(stream.backend) for stream in streams}) == 1


def test_a_block_that_fills_two_chunks_is_one_step_and_says_the_same():
    converter = TinyConverter(width=64).eval()
    backend, x = Counting(converter, 300), probe(300, 32).flatten().numpy()
    by_chunk = Session(backend, TestVoice(1), together=8)
    wanted = np.concatenate([by_chunk.push(part) for part in x.reshape(-1, 300)])
    assert backend.lengths == [(1, 300)] * 32
    backend.lengths.clear()
    session = Session(backend, TestVoice(1), together=8)
    got = np.concatenate([session.push(part) for part in x.reshape(-1, 600)])
    assert backend.lengths == [(1, 600)] * 16 and session.steps == 16
    np.testing.assert_allclose(got, wanted, atol=1e-6)


class LevelGate:
    """Open while a chunk is loud."""

    lookback, skipped = 0.0, 0

    def reset(self):
        pass

    def decide(self, x):
        return bool(np.abs(x).max() > 0.05)


def test_no_order_of_chunks_is_lost_where_voices_fade_and_the_gate_closes():
    converter = TinyConverter(width=64).eval()
    rng = np.random.default_rng(0)
    loud = np.repeat(rng.random(60) > 0.5, 600).astype(np.float32)
    x = (0.2 * loud * rng.standard_normal(len(loud))).astype(np.float32)

    def said(size):
        backend = Counting(converter, 300)
        session = Session(backend, TestVoice(1), gate=LevelGate(), together=8)
        parts = []
        for start in range(0, len(x), 6000):
            for at in range(start, start + 6000, size):
                parts.append(session.push(x[at : min(at + size, start + 6000)]))
            session.swap(TestVoice(start))
        return np.concatenate([*parts, session.flush()]), backend.lengths

    (one, short), (many, long) = said(300), said(3000)
    assert max(n for _, n in short) < max(n for _, n in long) == 8 * 300
    assert (2, 300) in long, "a voice that fades is a step by itself"
    assert len(one) == len(many) == len(x)
    np.testing.assert_allclose(many, one, atol=2e-6)


def test_long_steps_of_the_shipped_model_say_what_short_ones_do():
    vc = rtvc.load()
    voice = vc.voice("examples/reference.flac")
    x = 0.5 * probe(600, 40).flatten().numpy()
    streams = [vc.stream(voice, chunk=300) for _ in range(2)]
    one, two = (
        np.concatenate([stream.push(part) for part in x.reshape(-1, size)])
        for stream, size in zip(streams, (300, 600), strict=True)
    )
    assert (streams[0].steps, streams[1].steps) == (80, 40)
    assert np.linalg.norm(one - two) / np.linalg.norm(one) < 1e-5
