"""Sessions: sample-exact at every rate, blind to block sizes, and every control is click-free."""

import numpy as np
import pytest
import torch
from calling import noise
from converters import DelayConverter, TestVoice, TinyConverter

from rtvc.engine.backends.base import Layout
from rtvc.engine.backends.eager import TorchBackend
from rtvc.engine.streams.resampler import Resampler
from rtvc.engine.streams.session import PIECE_S, Session
from rtvc.errors import AudioError, EngineError, VoiceError
from rtvc.layers.contract import offline
from rtvc.voices.voice import Voice

RATES = [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000]


def in_blocks(session, x, seed, longest=3000):
    rng, out, at = np.random.default_rng(seed), [], 0
    while at < len(x):
        size = int(rng.integers(1, longest))
        out.append(session.push(x[at : at + size]))
        at += size
    return np.concatenate([*out, session.flush()])


@pytest.fixture(scope="module")
def backend():
    return TorchBackend(TinyConverter(), 600)


@pytest.fixture(scope="module")
def delay():
    return TorchBackend(DelayConverter(), 600)


@pytest.mark.parametrize("rate_out", [8_000, 24_000, 44_100, 96_000])
@pytest.mark.parametrize("rate_in", RATES)
def test_output_does_not_depend_on_blocks_and_its_length_is_known(backend, rate_in, rate_out):
    x = noise(rate_in // 4 + 77)
    session = Session(backend, TestVoice(1), sample_rate=rate_in, output_rate=rate_out)
    whole = np.concatenate([session.push(x), session.flush()])
    assert len(whole) == -(-len(x) * rate_out // rate_in)
    for seed in range(2):
        session.reset()
        np.testing.assert_array_equal(in_blocks(session, x, seed), whole)


def test_thirty_random_chunkings_equal_the_offline_conversion(backend):
    """Streaming is the offline conversion: the same lines, one big chunk."""
    x = noise(24_000)
    converter, voice = backend.converter, TestVoice(2)
    condition = backend.condition(voice)
    with torch.inference_mode():
        padded = torch.nn.functional.pad(
            torch.from_numpy(x), (0, converter.latency + 300 - (len(x) + converter.latency) % 300)
        )
        y, _ = converter(padded[None, None], condition, converter.initial(1))
    wanted = y[0, 0, converter.latency : converter.latency + len(x)].numpy()
    session = Session(backend, voice)
    for seed in range(30):
        session.reset()
        np.testing.assert_allclose(in_blocks(session, x, seed), wanted, rtol=0, atol=1e-6)


def test_offline_helper_and_tiny_converter_agree_on_latency():
    """The stand-in declares what its convolutions cost: 3 frames of 300 samples."""
    converter = TinyConverter()
    assert converter.latency == converter.body.latency * converter.hop
    assert offline(converter.body, torch.randn(1, 300, 8)).shape == (1, 300, 8)


def test_nothing_is_lost_or_doubled_through_a_pure_delay(delay):
    x = noise(30_011)
    np.testing.assert_array_equal(in_blocks(Session(delay, TestVoice(gain=1.0)), x, 3), x)


def test_files_longer_than_a_piece_pass_in_pieces(delay):
    x = noise(int(24_000 * PIECE_S * 2.3))
    session = Session(delay, TestVoice(gain=1.0))
    np.testing.assert_array_equal(np.concatenate([session.push(x), session.flush()]), x)


@pytest.mark.parametrize(
    ("rate_in", "rate_out"),
    [(48_000, 24_000), (24_000, 44_100), (44_100, 24_000), (16_000, 24_000), (24_000, 8_000)],
)
def test_resampled_tones_keep_phase_and_level(rate_in, rate_out):
    edge = Resampler(rate_in, rate_out)
    tone = np.sin(2 * np.pi * 1000 * np.arange(rate_in // 2) / rate_in).astype(np.float32)
    got = np.concatenate([edge.push(tone), edge.flush()])
    wanted = np.sin(2 * np.pi * 1000 * np.arange(rate_out // 2) / rate_out)
    assert np.abs(got - wanted)[200:-200].max() < 5e-5


def test_downsampling_rejects_what_would_alias():
    edge = Resampler(48_000, 24_000)
    tone = np.sin(2 * np.pi * 17_000 * np.arange(24_000) / 48_000).astype(np.float32)
    got = np.concatenate([edge.push(tone), edge.flush()])
    assert np.abs(got[200:-200]).max() < 10 ** (-80 / 20)


def test_unusable_rates_and_blocks_are_refused(backend):
    with pytest.raises(AudioError, match="1000 Hz"):
        Resampler(1000, 24_000)
    session = Session(backend, TestVoice())
    with pytest.raises(AudioError, match="mono"):
        session.push(np.zeros((2, 100), np.float32))
    with pytest.raises(AudioError, match="int16"):
        session.push(np.zeros(100, np.int16))
    with pytest.raises(AudioError, match="NaN or infinity"):
        session.push(np.array([0.0, np.nan], np.float32))
    with pytest.raises(AudioError, match="wet"):
        session.wet = 1.5
    session.flush()
    with pytest.raises(EngineError, match="flush"):
        session.push(np.zeros(10, np.float32))


def test_a_swap_is_complete_within_20_ms_and_has_no_step(delay):
    """Through a pure delay the voice is a gain: its path from 1 to -1 shows the fade sample by
    sample."""
    session = Session(delay, TestVoice(gain=1.0))
    ones = np.ones(6_000, np.float32)
    before = session.push(ones)
    session.swap(TestVoice(gain=-1.0))
    after = np.concatenate([session.push(ones), session.flush()])
    whole = np.concatenate([before, after])
    assert np.abs(np.diff(whole[:11_000])).max() < 2.5 * 2 / 480
    changed = np.flatnonzero(np.abs(np.diff(whole[:11_000])) > 1e-6)
    assert 400 <= changed[-1] - changed[0] <= 480
    assert whole[0] == 1.0 and whole[10_000] == -1.0


def test_pitch_and_prosody_reach_the_condition(backend):
    session = Session(backend, TestVoice(1), pitch=2.0)
    x = noise(6_000)
    first = np.concatenate([session.push(x), session.flush()])
    session.reset()
    session.pitch, session.prosody = -3.0, 0.0
    second = np.concatenate([session.push(x), session.flush()])
    fresh = Session(backend, TestVoice(1), pitch=-3.0, prosody=0.0)
    third = np.concatenate([fresh.push(x), fresh.flush()])
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_allclose(second[600:], third[600:], atol=1e-6)
    assert (session.pitch, session.prosody) == (-3.0, 0.0)


def test_mix_is_the_weighted_mean_of_the_style_vectors(backend):
    a, b = TestVoice(1), TestVoice(2)
    style = Voice.mix({a: 3.0, b: 1.0})
    torch.testing.assert_close(style.acoustic, 0.75 * a.acoustic + 0.25 * b.acoustic)
    session = Session(backend, a)
    session.mix({a: 3.0, b: 1.0})
    torch.testing.assert_close(session.chunker.voice, backend.condition(style))
    for weights in ({}, {a: 0.0}, {a: -1.0, b: 2.0}):
        with pytest.raises(VoiceError, match="weights"):
            session.mix(weights)


def test_a_voice_of_another_style_space_is_not_swapped_in(backend):
    """Neither by `swap` nor by `mix`, the old one speaks on; what is not known is believed."""
    ours, theirs, unknown = (
        Voice(TestVoice(seed).acoustic, TestVoice(seed).prosodic, source=source)
        for seed, source in [(1, {"space": "ours"}), (2, {"space": "theirs"}), (3, {})]
    )
    session = Session(backend, ours)
    for change in (lambda: session.swap(theirs), lambda: session.mix({theirs: 1.0, unknown: 1.0})):
        with pytest.raises(VoiceError, match="ours, theirs"):
            change()
        assert session.voice is ours
        torch.testing.assert_close(session.chunker.voice, backend.condition(ours))
    again = Session(backend, unknown)
    again.resume(session.park())
    with pytest.raises(VoiceError, match="ours, theirs"):
        again.swap(theirs)
    session.swap(unknown)
    assert session.voice is unknown


def test_the_dry_path_is_aligned_with_the_wet_one(delay):
    """Through a pure delay, any mix of dry and wet is the input itself."""
    x = noise(20_000)
    session = Session(delay, TestVoice(gain=1.0), wet=0.3)
    np.testing.assert_allclose(in_blocks(session, x, 5), x, atol=1e-7)
    session = Session(delay, TestVoice(gain=0.0), wet=1.0)
    head = session.push(x[:9_000])
    session.wet = 0.0
    y = np.concatenate([head, session.push(x[9_000:]), session.flush()])
    assert np.abs(y[:7_000]).max() == 0
    np.testing.assert_array_equal(y[12_000:], x[12_000:])


def test_park_and_resume_leave_no_seam(backend):
    x, voice = noise(20_000), TestVoice(4)
    settings = {"sample_rate": 44_100, "output_rate": 16_000}
    session = Session(backend, voice, **settings)
    whole = np.concatenate([session.push(x), session.flush()])
    session.reset()
    parts = []
    for at in range(0, len(x), 3_001):
        parts.append(session.push(x[at : at + 3_001]))
        data = session.park()
        session = Session(backend, TestVoice(9), **settings)
        session.resume(data)
    np.testing.assert_array_equal(np.concatenate([*parts, session.flush()]), whole)
    session.reset()
    np.testing.assert_array_equal(np.concatenate([session.push(x), session.flush()]), whole)


def test_foreign_bytes_are_refused(backend):
    session = Session(backend, TestVoice())
    with pytest.raises(EngineError, match="expected a parked session"):
        session.resume(b"nonsense")
    other = Session(backend, TestVoice(), sample_rate=48_000)
    with pytest.raises(EngineError, match="equal settings"):
        session.resume(other.park())


def test_a_parked_session_keeps_a_swap_that_has_not_sounded_yet(delay):
    def run(parked):
        session = Session(delay, TestVoice(gain=1.0))
        head = session.push(np.ones(5_000, np.float32))
        session.swap(TestVoice(gain=0.5))
        if parked:
            data = session.park()
            session = Session(delay, TestVoice(gain=7.0))
            session.resume(data)
        return np.concatenate([head, session.push(np.ones(5_000, np.float32)), session.flush()])

    np.testing.assert_array_equal(run(True), run(False))


def test_states_are_packed_without_loss(backend):
    state = {
        "phase": torch.rand(3, 1, dtype=torch.float64),
        "row": torch.tensor([1, 996, 2**24 - 1]),
        "x": torch.randn(3, 2, 5),
    }
    layout = Layout.of({name: leaf[:1] for name, leaf in state.items()})
    packed = layout.pack(state)
    assert packed.shape == (3, layout.size) == (3, 13) and packed.dtype == torch.float32
    back = layout.unpack(packed)
    assert (back["phase"] - state["phase"]).abs().max() < 1e-14
    assert torch.equal(back["row"], state["row"]) and torch.equal(back["x"], state["x"])
    assert backend.layout.unpack(backend.initial(2))["frames"].shape == (2,)


def test_states_and_chunks_that_do_not_fit_are_refused():
    with pytest.raises(EngineError, match=r"steps is torch\.bfloat16"):
        Layout.of({"steps": torch.zeros(1, dtype=torch.bfloat16)})
    with pytest.raises(EngineError, match="multiple of the model's hop"):
        TorchBackend(TinyConverter(), 500)


def test_latency_is_told_and_true(delay):
    """What comes before `latency` seconds is never ready; by then it always is."""
    session = Session(delay, TestVoice(gain=1.0), sample_rate=48_000)
    got = pushed = 0
    behind = []
    while pushed < 48_000:
        got += len(session.push(np.zeros(48, np.float32)))
        pushed += 48
        behind.append(pushed - got)
    assert max(behind) / 48_000 <= session.latency + 0.001
    assert max(behind) / 48_000 > session.latency - 0.002
