"""The speech gate on real speech: silence costs nothing and sounds like nothing, the first
consonant survives."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
from converters import DelayConverter, TestVoice

from rtvc.engine.backends.eager import TorchBackend
from rtvc.engine.streams import gate as gate_module
from rtvc.engine.streams.gate import Gate, Silero
from rtvc.engine.streams.session import Session
from rtvc.errors import DependencyError

pytest.importorskip("onnxruntime")
pytest.importorskip("silero_vad")
CORPUS = Path(__file__).resolve().parents[4] / "shared" / "corpus" / "eval"
RATE = 16_000


class Scripted:
    """Says what it is told, one probability a push."""

    def __init__(self, *probabilities):
        self.said, self.at = probabilities, 0

    def push(self, block):
        self.at += 1
        return [self.said[min(self.at - 1, len(self.said) - 1)]]

    def reset(self):
        self.at = 0

    def state(self):
        return {"at": self.at}

    def restore(self, state):
        self.at = state["at"]


def speech(limit=8):
    """A few real utterances, each behind a second of its own room noise; (samples, where speech
    begins in seconds)."""
    if not (CORPUS.parent / "eval.tsv").is_file():
        pytest.skip("../shared/corpus/eval, the recordings of real speech, is not there")
    with (CORPUS.parent / "eval.tsv").open() as file:
        paths = [CORPUS / row["path"] for row in csv.DictReader(file, delimiter="\t")][
            :: 150 // limit
        ][:limit]
    found = []
    for path in paths:
        x, rate = soundfile.read(path, dtype="float32", frames=RATE * 3)
        assert rate == RATE
        power = 10 * np.log10(np.convolve(x**2, np.ones(160) / 160, "same")[::80] + 1e-12)
        floor, loud = np.percentile(power, 5), np.percentile(power, 95)
        above = power > max(floor + 12, loud - 35)
        onset = int(np.argmax(np.convolve(above, np.ones(4), "valid") >= 4)) * 80 / RATE
        room = np.random.default_rng(0).standard_normal(RATE) * 10 ** (floor / 20)
        found.append((np.concatenate([room.astype(np.float32), x]), 1.0 + onset))
    return found


@pytest.fixture(scope="module")
def backend():
    return TorchBackend(DelayConverter(), 600)


def through(session, x):
    return np.concatenate([session.push(x), session.flush()])


def test_the_first_consonant_survives(backend):
    """Of the first 80 ms after the onset, at least 90 % of the energy comes through in most
    utterances, and all in the median."""
    kept = []
    for x, onset in speech():
        y = through(
            Session(
                backend, TestVoice(gain=1.0), sample_rate=RATE, gate=Gate(24_000, lookback=0.05)
            ),
            x,
        )
        first = slice(int(onset * RATE), int((onset + 0.08) * RATE))
        assert len(y) == len(x)
        kept.append(float((y[first] ** 2).sum() / (x[first] ** 2).sum()))
    assert np.median(kept) > 0.97 and np.mean(np.array(kept) > 0.9) >= 0.75


def test_speech_after_the_onset_passes_unchanged(backend):
    x, onset = speech(1)[0]
    y = through(Session(backend, TestVoice(gain=1.0), sample_rate=24_000, gate=Gate(24_000)), x)
    begin = int((onset + 0.2) * 24_000)
    np.testing.assert_allclose(y[begin : begin + 12_000], x[begin : begin + 12_000], atol=1e-6)


def test_silence_yields_silence_and_skips_the_model(backend):
    """Ten seconds of room noise: not one step, not one sample."""
    noise = (np.random.default_rng(1).standard_normal(10 * 24_000) * 1e-3).astype(np.float32)
    session = Session(backend, TestVoice(gain=1.0), gate=Gate(24_000))
    y = through(session, noise)
    assert len(y) == len(noise) and not y.any()
    assert session.steps == 0 and session.chunker.gate.skipped == session.chunker.gate.chunks


def test_blocks_do_not_matter_with_a_gate_either(backend):
    x, _ = speech(1)[0]
    session = Session(
        backend, TestVoice(gain=1.0), sample_rate=RATE, gate=Gate(24_000, lookback=0.025)
    )
    whole = through(session, x)
    session.reset()
    parts = [session.push(x[at : at + 777]) for at in range(0, len(x), 777)]
    np.testing.assert_array_equal(np.concatenate([*parts, session.flush()]), whole)


def test_a_gated_session_can_be_parked(backend):
    x, _ = speech(1)[0]
    session = Session(
        backend, TestVoice(gain=1.0), sample_rate=RATE, gate=Gate(24_000, lookback=0.025)
    )
    whole = through(session, x)
    session.reset()
    parts = []
    for at in range(0, len(x), 5_555):
        parts.append(session.push(x[at : at + 5_555]))
        data = session.park()
        session = Session(
            backend, TestVoice(gain=1.0), sample_rate=RATE, gate=Gate(24_000, lookback=0.025)
        )
        session.resume(data)
    np.testing.assert_array_equal(np.concatenate([*parts, session.flush()]), whole)


def test_the_state_after_a_pause_is_that_of_a_listener(backend):
    """What the converter slept through just before the onset is fed to it, so its delay line holds
    the right samples."""
    x = np.arange(1, 600 * 12 + 1, dtype=np.float32) / 8192  # exact, and within full scale
    probabilities = [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1]
    session = Session(
        backend, TestVoice(gain=1.0), gate=Gate(24_000, detector=Scripted(*probabilities))
    )
    y = through(session, x)
    begin = 5 * 600 - 900 + 240  # the chunk of the decision, earlier by the latency, after the fade
    np.testing.assert_array_equal(y[begin:], x[begin:])
    assert not y[: begin - 240].any() and np.all(np.diff(y[begin - 240 : begin + 1]) > 0)
    assert session.steps < 12 + 3


def test_hangover_and_thresholds():
    gate = Gate(
        24_000,
        opens=0.5,
        closes=0.3,
        hangover=0.05,
        detector=Scripted(0.4, 0.6, 0.35, 0.2, 0.2, 0.2, 0.2),
    )
    chunk = np.zeros(600, np.float32)
    assert [gate.decide(chunk) for _ in range(7)] == [False, True, True, True, True, False, False]
    assert gate.skipped == 3 and gate.chunks == 7


def test_the_gate_falls_without_a_step(backend):
    session = Session(
        backend,
        TestVoice(gain=1.0),
        gate=Gate(24_000, hangover=0.0, detector=Scripted(1, 1, 1, 1, 0)),
    )
    y = through(session, np.ones(600 * 10, np.float32))
    assert np.abs(np.diff(y[:4_000])).max() < 0.01 and not y[4_000:].any()


def test_a_missing_detector_is_explained(monkeypatch):
    gate_module.detector.cache_clear()
    monkeypatch.setattr(gate_module, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"rtvc-engine\[live\]"):
        Silero(24_000)
    gate_module.detector.cache_clear()
