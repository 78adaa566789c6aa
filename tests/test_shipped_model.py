"""The weights in the repository: their size, and that they do in a stream what they do offline, on real speech."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import rtvc
from rtvc.audio.io import read
from rtvc.audio.resample import resample
from rtvc.engine.backends.eager import TorchBackend
from rtvc.engine.edges import Resampler
from rtvc.models.streaming import StreamingConverter, load_default
from rtvc.models.streaming.assets import DEFAULT

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def model() -> StreamingConverter:
    return load_default().requires_grad_(False)


@pytest.fixture(scope="module")
def speech() -> Tensor:
    """Three seconds, (1, 1, N)."""
    return read(EXAMPLES / "source.flac")[: 240 * 300][None, None]


def spoken(model: StreamingConverter, x: Tensor, sizes: list[int]) -> Tensor:
    voice = model.condition(*model.styles(read(EXAMPLES / "reference.flac")[: 400 * 300][None, None].to(x)))
    state, parts = model.initial(1), []
    for chunk in x.split(sizes, -1):
        y, state = model(chunk, voice, state)
        parts.append(y)
    return torch.cat(parts, -1)


def test_assets_fit_their_budget() -> None:
    assert sum(f.stat().st_size for f in DEFAULT.parent.iterdir()) <= 32_000_000


def test_streaming_equals_offline_in_float32(model: StreamingConverter, speech: Tensor) -> None:
    whole = spoken(model, speech, [speech.shape[-1]])
    chunks = spoken(model, speech, [300] * 40 + [600] * 70 + [1500] * 12)
    assert (chunks - whole).norm() / whole.norm() < 1e-4


def test_streaming_equals_offline_in_float64(speech: Tensor) -> None:
    model, x = load_default().double().requires_grad_(False), speech[..., : 60 * 300].double()
    error = (spoken(model, x, [300] * 60) - spoken(model, x, [x.shape[-1]])).abs().max()
    assert error < 1e-10


def test_it_takes_the_register_of_the_reference(model: StreamingConverter) -> None:
    """The bundled source is a man, the reference a woman: the pitch must rise, and fall again without prosody transfer."""
    vc = rtvc.load()
    x, sr = read(EXAMPLES / "source.flac").numpy(), 24_000
    voice = vc.voice(EXAMPLES / "reference.flac")

    def register(y: np.ndarray) -> float:  # type: ignore[type-arg]
        wave = torch.from_numpy(y[: len(y) // 300 * 300])[None, None]
        heard, _ = model.analysis(wave, model.analysis.initial(1))
        pitch, _ = model.pitch(heard[:, 80:], model.pitch.initial(1))
        return float(pitch[0, 0][pitch[0, 1] > 0.7].exp().median())

    own, taken, kept = register(x), register(vc.convert(x, sr, voice)), register(vc.convert(x, sr, voice, prosody=0.0))
    assert taken > 1.3 * own
    assert abs(np.log2(kept / own)) < 0.1


def test_silence_stays_silent(model: StreamingConverter) -> None:
    y = spoken(model, torch.zeros(1, 1, 24_000), [24_000])
    assert y[..., 12_000:].square().mean().sqrt() < 3e-3


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000])
def test_sessions_equal_the_offline_conversion_for_random_blocks_at_every_rate(rate: int) -> None:
    """Three random cuttings at each of ten rates, of real speech: the same as resampling, converting and resampling the whole."""
    vc = rtvc.load()
    voice = vc.voice(EXAMPLES / "reference.flac")
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


def test_a_stream_opens_any_backend_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []

    def open_engine(*arguments: object) -> tuple[TorchBackend, dict[str, object]]:
        opened.append(arguments)
        return TorchBackend(arguments[0], 600), {}  # type: ignore[arg-type]

    vc = rtvc.load()
    monkeypatch.setattr("rtvc.engine.open.open_engine", open_engine)
    stream = vc.stream(vc.voice(EXAMPLES / "reference.flac"), backend="auto", chunk=600)
    assert opened == [(vc.model.converter, "auto", 600)] and stream.backend.chunk == 600  # type: ignore[attr-defined]
