"""The limiter at the end of every stream: bounded whatever comes, silent about what is quiet, and
without latency.
"""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from rtvc.engine.backends.base import Layout
from rtvc.engine.graph.export import export_step
from rtvc.layers.contract import chunked
from rtvc.layers.limiter import BLOCK, CEILING, RELEASE, Limiter, knee, limited
from rtvc.layers.verify import verify_contract
from rtvc.models.streaming import StreamingConfig, StreamingConverter

RATE = 24_000


def loud(*shape: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Noise whose level runs from silence to +40 dBFS and back."""
    envelope = 100 * torch.sin(torch.linspace(0, math.pi, shape[-1], dtype=dtype)) ** 4
    return torch.randn(*shape, generator=generator, dtype=dtype) * envelope


@pytest.mark.parametrize("draw", [torch.randn, loud])
def test_it_keeps_the_contract_in_float64(draw: object) -> None:
    verify_contract(Limiter(RATE), 1, frames=90 * BLOCK, unit=BLOCK, tolerance=1e-12, draw=draw)  # type: ignore[arg-type]


def test_what_stays_below_minus_one_dbfs_leaves_bit_for_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(2, 1, RATE, generator=generator) * 2 - 1) * CEILING
    limiter = Limiter(RATE)
    y, reduction = limiter(x, limiter.initial(2))
    assert torch.equal(y, x) and torch.equal(reduction, torch.zeros(2, 1))


@pytest.mark.parametrize("decibels", [1, 6, 20, 46, 200, 700])
def test_no_sample_leaves_above_full_scale(decibels: int) -> None:
    """At 700 dB the samples reach 1e35, the most that float32 holds with a little to spare."""
    generator = torch.Generator().manual_seed(decibels)
    x = torch.randn(3, 1, 40 * BLOCK, generator=generator) * 10 ** (decibels / 20)
    limiter = Limiter(RATE)
    y, reduction = limiter(x, limiter.initial(3))
    assert y.isfinite().all() and y.abs().max() <= 1 and reduction.isfinite().all()
    assert y.square().mean().sqrt() > 0.05, "limited, not muted"


def test_non_finite_samples_become_silence_and_are_forgotten() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, 40 * BLOCK, generator=generator) * 0.1
    broken = x.clone()
    broken[..., 100], broken[..., 200], broken[..., 300] = math.nan, math.inf, -math.inf
    limiter = Limiter(RATE)
    y, reduction = limiter(broken, limiter.initial(1))
    kept = torch.ones_like(x, dtype=torch.bool)
    kept[..., [100, 200, 300]] = False
    assert (
        torch.equal(y[kept], x[kept]) and torch.equal(y[~kept], torch.zeros(3)) and reduction == 0
    )


def test_a_blast_is_forgotten_at_the_declared_speed_and_then_exactly() -> None:
    """After a peak 40 dB too high the gain rises by 80 dB a second; after half a second the signal
    is bit for bit its own again.
    """
    x = torch.full((1, 1, RATE), 0.5)
    x[..., :BLOCK] = 100 * CEILING
    limiter = Limiter(RATE)
    y, _ = limiter(x, limiter.initial(1))
    gain = (y / x)[0, 0]
    assert gain[BLOCK - 1] == pytest.approx(0.01, rel=1e-4)
    at = BLOCK + round(0.25 * RATE) // BLOCK * BLOCK
    assert 20 * math.log10(gain[at - 1]) == pytest.approx(
        -40 + RELEASE * (at - BLOCK) / RATE, abs=0.05
    )
    done = BLOCK + math.ceil(40 / RELEASE * RATE / BLOCK) * BLOCK
    assert torch.equal(y[..., done:], x[..., done:]) and not torch.equal(
        y[..., : done - BLOCK], x[..., : done - BLOCK]
    )


def test_the_gain_has_no_step() -> None:
    x = torch.full((1, 1, 60 * BLOCK), 0.8)
    x[..., 20 * BLOCK :] = 3.0
    limiter = Limiter(RATE)
    y, _ = limiter(x, limiter.initial(1))
    settled = y[..., 22 * BLOCK :]
    assert (y[..., 20 * BLOCK :] <= 1).all() and torch.allclose(
        settled, torch.full_like(settled, CEILING), atol=1e-5
    )
    assert y[..., : 20 * BLOCK].equal(x[..., : 20 * BLOCK]), (
        "nothing is heard before the peak: there is no look-ahead"
    )


def test_the_knee_is_the_identity_then_bends_without_a_corner() -> None:
    x = torch.linspace(-4, 4, 80_001, dtype=torch.float64)
    y = knee(x)
    assert torch.equal(y[x.abs() <= CEILING], x[x.abs() <= CEILING])
    slope = y.diff() / x.diff()
    assert (
        slope.min() >= 0
        and slope.max() <= 1 + 1e-9
        and slope.diff().abs().max() < 2e-3
        and y.abs().max() <= 1
    )


def test_a_whole_recording_of_any_length_is_limited_as_a_stream_is() -> None:
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 1, 10_001)) * 2)
    whole = limited(x, RATE)
    limiter = Limiter(RATE).double()
    sizes = [5 * BLOCK, 100 * BLOCK, 28 * BLOCK]
    assert whole.shape == x.shape
    torch.testing.assert_close(
        whole[..., : sum(sizes)], chunked(limiter, x[..., : sum(sizes)], sizes), rtol=0, atol=1e-12
    )


def test_a_chunk_that_is_no_multiple_of_its_block_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a chunk of a multiple of 75"):
        Limiter(RATE)(torch.zeros(1, 1, 100), torch.zeros(1, 1))


def blasting(loudness: float) -> StreamingConverter:
    """A small model whose filters are at e^loudness."""
    torch.manual_seed(0)
    sizes = {
        name: 16
        for name in (
            "content_hidden",
            "pitch_hidden",
            "decoder_hidden",
            "acoustic_hidden",
            "prosodic_hidden",
        )
    }
    config = StreamingConfig(
        content_dilations=(1,), pitch_dilations=(1,), decoder_dilations=(1,), **sizes
    )  # type: ignore[arg-type]
    model = StreamingConverter(config).eval().requires_grad_(False)
    model.decoder.head.bias.fill_(loudness)
    return model


def murmur() -> Tensor:
    """0.3 s of noise (1, 1, N)."""
    return torch.randn(1, 1, 24 * 300, generator=torch.Generator().manual_seed(1)) * 0.1


@pytest.mark.parametrize("loudness", [3.0, 11.9])
def test_a_model_whose_decoder_blasts_is_bounded_alike_offline_and_in_chunks(
    loudness: float,
) -> None:
    """Filters at up to e^11.9, +100 dB: offline and streams agree to 1e-9."""
    model, x = blasting(loudness).double(), murmur().double()
    voice = model.condition(*torch.zeros(2, 1, 128, dtype=torch.float64))
    whole, _ = model(x, voice, model.initial(1))
    pieces, steps = model.initial(1), list[Tensor]()
    for chunk in x.split([300, 1500, 600, 4800], -1):
        y, pieces = model(chunk, voice, pieces)
        steps.append(y)
    assert (torch.cat(steps, -1) - whole).abs().max() < 1e-9
    assert whole.isfinite().all() and 0.5 < whole.abs().max() <= 1


def test_an_exported_step_keeps_the_bound_too() -> None:
    model = blasting(11.9)
    graph, layout = export_step(model, 600), Layout.of(model.initial(1))
    voice = model.condition(*torch.zeros(2, 1, 128))
    state, steps = layout.pack(model.initial(1)), list[Tensor]()
    for chunk in murmur().split(600, -1):
        y, state = graph(chunk, voice, state)
        steps.append(y)
    said = torch.cat(steps, -1)
    assert said.isfinite().all() and 0.5 < said.abs().max() <= 1
