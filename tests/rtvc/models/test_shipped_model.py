"""The weights in the repository: their size, and that they do in a stream what they do offline, on
real speech."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

import rtvc
from rtvc.audio.recording import read
from rtvc.audio.resample import resample
from rtvc.engine.backends.eager import TorchBackend
from rtvc.engine.streams.resampler import Resampler
from rtvc.layers.source import SourceState
from rtvc.models.streaming.assets import DEFAULT, load_default
from rtvc.models.streaming.dial import DialConverter
from rtvc.models.streaming.precise_pitch import exact

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture(scope="module")
def model() -> DialConverter:
    return load_default().requires_grad_(False)


@pytest.fixture(scope="module")
def vc() -> rtvc.VoiceConverter:
    return rtvc.load()


@pytest.fixture(scope="module")
def voice(vc: rtvc.VoiceConverter) -> rtvc.Voice:
    return vc.voice(EXAMPLES / "reference.flac")


@pytest.fixture(scope="module")
def speech() -> Tensor:
    """Three seconds, (1, 1, N)."""
    return read(EXAMPLES / "source.flac")[: 240 * 300][None, None]


def spoken(model: DialConverter, x: Tensor, sizes: list[int]) -> tuple[Tensor, SourceState]:
    """What comes of x (1, 1, N) cut into `sizes`, (1, 1, N), and the harmonic source's last
    state."""
    reference = read(EXAMPLES / "reference.flac")[: 400 * 300][None, None].to(x)
    voice = model.condition(*model.styles(reference))
    state, parts = model.initial(1), []
    for chunk in x.split(sizes, -1):
        y, state = model(chunk, voice, state)
        parts.append(y)
    return torch.cat(parts, -1), state.decoder.source


def test_assets_fit_their_budget() -> None:
    assert sum(f.stat().st_size for f in DEFAULT.parent.iterdir()) <= 32_000_000


UNEVEN = [300] * 40 + [600] * 70 + [1500] * 12


def test_streaming_equals_offline_in_float32(model: DialConverter, speech: Tensor) -> None:
    """As plain torch runs the model, with its pitch network in float64.

    Then phases are equal, and a sample differs by how its float32 sums are ordered: at most K =
    1,152 terms each, whose roundings of 2^-24 add up to sqrt(K) 2^-24 = 2e-6; five such layers in
    quadrature give 5e-6.
    """
    whole, one = spoken(exact(model), speech, [speech.shape[-1]])
    chunks, many = spoken(exact(model), speech, UNEVEN)
    assert (chunks - whole).norm() / whole.norm() < 5e-6
    assert (many.phase - one.phase).abs() < 1e-9


def test_in_float32_throughout_the_phase_drifts_by_one_rounding_of_f0_a_frame(
    model: DialConverter, speech: Tensor
) -> None:
    """Compiled backends compute the pitch in float32 as well, and the source adds up what is
    rounded.

    F0 is a peak's float64 frequency plus a float32 distance below a tenth, which costs it less than
    one rounding, 2^-23, a frame. So the phase errs by less than that share of the cycles that went
    by.
    """
    _, one = spoken(model, speech, [speech.shape[-1]])
    _, many = spoken(model, speech, UNEVEN)
    frames, highest = speech.shape[-1] / model.hop, 1_100.0
    cycles = frames * model.hop / model.sample_rate * highest
    apart = many.phase - one.phase
    assert (apart - apart.round()).abs() < cycles * 2**-23
    assert (many.f0 / one.f0 - 1).abs() < 2**-23


def test_streaming_equals_offline_in_float64(speech: Tensor) -> None:
    model, x = load_default().double().requires_grad_(False), speech[..., : 60 * 300].double()
    whole, _ = spoken(model, x, [x.shape[-1]])
    chunks, _ = spoken(model, x, [300] * 60)
    assert (chunks - whole).abs().max() < 1e-10


def test_it_takes_the_register_of_the_reference(
    model: DialConverter, vc: rtvc.VoiceConverter, voice: rtvc.Voice
) -> None:
    """The bundled source is a man, the reference a woman: the pitch must rise, and fall again
    without prosody transfer."""
    x, sr = read(EXAMPLES / "source.flac").numpy(), 24_000

    def register(y: np.ndarray) -> float:  # type: ignore[type-arg]
        wave = torch.from_numpy(y[: len(y) // 300 * 300])[None, None]
        heard, _ = model.analysis(wave, model.analysis.initial(1))
        pitch, _ = model.pitch(heard[:, 80:], model.pitch.initial(1))
        return float(pitch[0, 0][pitch[0, 1] > 0.7].exp().median())

    own, taken, kept = (
        register(x),
        register(vc.convert(x, sr, voice)),
        register(vc.convert(x, sr, voice, prosody=0.0)),
    )
    assert taken > 1.3 * own
    assert abs(np.log2(kept / own)) < 0.1


def test_silence_stays_silent(model: DialConverter) -> None:
    y, _ = spoken(model, torch.zeros(1, 1, 24_000), [24_000])
    assert y[..., 12_000:].square().mean().sqrt() < 3e-3


@pytest.mark.parametrize(
    "rate", [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000]
)
def test_sessions_equal_the_offline_conversion_for_random_blocks_at_every_rate(
    rate: int, vc: rtvc.VoiceConverter, voice: rtvc.Voice
) -> None:
    """Three random cuttings at each of ten rates, of real speech: the same as resampling,
    converting and resampling the whole."""
    x = resample(read(EXAMPLES / "source.flac").numpy()[24_000 : 24_000 + 29_950], 24_000, rate)

    def resampled(y: np.ndarray, rate_in: int, rate_out: int) -> np.ndarray:  # type: ignore[type-arg]
        edge = Resampler(rate_in, rate_out)
        return np.concatenate([edge.push(y), edge.flush()])

    inside = resampled(x, rate, 24_000)
    whole = resampled(vc.convert(inside, 24_000, voice), 24_000, rate)[: len(x)]
    stream = vc.stream(voice, sample_rate=rate, chunk=600)
    for seed in range(3):
        rng, at, parts = np.random.default_rng((rate, seed)), 0, []
        stream.reset()
        while at < len(x):
            size = int(rng.integers(1, rate // 8))
            parts.append(stream.push(x[at : at + size]))
            at += size
        streamed = np.concatenate([*parts, stream.flush()])
        assert len(streamed) == len(x)
        error = np.linalg.norm(streamed[: len(whole)] - whole) / np.linalg.norm(whole)
        assert error < 1e-5, error


def test_a_stream_opens_any_backend_by_name(
    monkeypatch: pytest.MonkeyPatch, vc: rtvc.VoiceConverter, voice: rtvc.Voice
) -> None:
    opened: list[object] = []

    def begin(*arguments: object) -> tuple[TorchBackend, None]:
        opened.append(arguments)
        return TorchBackend(arguments[0], 600), None  # type: ignore[arg-type]

    monkeypatch.setattr("rtvc.engine.shared.begin", begin)
    streams = [vc.stream(voice, backend="auto", chunk=600) for _ in range(2)]
    assert opened == [(vc.model.converter, "auto", 600)]  # type: ignore[attr-defined]
    assert streams[0].backend is streams[1].backend and streams[0].backend.chunk == 600


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnx-int8", "openvino-int8"])
def test_a_stream_that_changes_engines_midway_equals_offline_as_closely_as_the_engine_does(
    vc: rtvc.VoiceConverter, voice: rtvc.Voice, name: str
) -> None:
    """The engine is built once a machine, into the user's cache."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("nncf" if name.startswith("openvino") else "onnxscript")
    from rtvc.engine.auto import cache_folder
    from rtvc.engine.cached import open_backend
    from rtvc.engine.streams.session import Session
    from rtvc.engine.trial import fidelity

    said, given = soundfile.read("examples/source.flac", dtype="float32")
    x = resample(said, given, 24_000)
    whole = vc.convert(x, 24_000, voice)
    converter = vc.model.converter  # type: ignore[attr-defined]
    engine = open_backend(converter, name, 600, cache_folder())

    def streamed(change: int) -> np.ndarray:  # type: ignore[type-arg]
        eager = TorchBackend(converter, 600)
        session = Session(eager, voice)
        parts = [session.push(x[:change])]
        eager.successor = engine
        parts += [session.push(x[change:]), session.flush()]
        assert session.backend is engine and session.resets == 0
        return np.concatenate(parts)

    half = len(x) // 2
    alone, changed = streamed(0), streamed(half)
    assert len(changed) == len(whole)
    begun = half - 2 * converter.latency
    assert np.abs(changed[:begun] - whole[:begun]).max() < 1e-4
    assert fidelity(changed, whole) >= fidelity(alone, whole) - 0.5 > 9.5
    error, seam = np.abs(changed - whole), half - converter.latency
    around = slice(seam - 600, seam + 600)
    assert error[around].max() <= np.abs(alone - whole).max(), "a click would stand out"
