"""The high-pass in front of the model: exact for every chunking, the filter that it says, and
nothing to clean speech.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import rtvc
from rtvc.audio.recording import read
from rtvc.layers.highpass import BLOCK, HighPass
from rtvc.layers.verify import verify_contract
from rtvc.voices.voice import Voice

RATE = 24_000
EXAMPLES = Path(__file__).parents[3] / "examples"


def test_it_keeps_the_contract_in_float64() -> None:
    verify_contract(HighPass(RATE, 60, 4), 1, frames=48 * BLOCK, unit=BLOCK, tolerance=1e-12)


def gain(layer: HighPass, hertz: float) -> float:
    """Of a tone once it has settled, in dB."""
    x = torch.cos(2 * math.pi * hertz * torch.arange(2 * RATE, dtype=torch.float64) / RATE)[
        None, None
    ]
    y, _ = layer(x, layer.initial(1))
    return float(10 * torch.log10(y[..., RATE:].square().mean() / x[..., RATE:].square().mean()))


@pytest.mark.parametrize("order", [2, 4, 6])
@pytest.mark.parametrize("hertz", [20, 50, 60, 100, 1000])
def test_its_response_is_butterworths(order: int, hertz: float) -> None:
    """-10 log10(1 + (tan(pi fc / fs) / tan(pi f / fs))^(2 order)): the definition, through the
    bilinear transform.
    """
    ratio = math.tan(math.pi * 70 / RATE) / math.tan(math.pi * hertz / RATE)
    assert gain(HighPass(RATE, 70, order), hertz) == pytest.approx(
        -10 * math.log10(1 + ratio ** (2 * order)), abs=0.01
    )


def test_nothing_of_a_constant_is_left() -> None:
    layer = HighPass(RATE, 70, 4)
    y, _ = layer(torch.ones(1, 1, RATE, dtype=torch.float64), layer.initial(1))
    assert y[..., RATE // 2 :].abs().max() < 1e-12


def test_float32_samples_lose_nothing_to_the_state() -> None:
    """In float32 with an offset of ten times the signal, cut small: as in float64 to the last bit
    but one.
    """
    x = (10 + torch.randn(1, 1, 100 * BLOCK, generator=torch.Generator().manual_seed(0))).float()
    layer = HighPass(RATE, 70, 4)
    wanted, _ = layer(x.double(), layer.initial(1))
    state, parts = layer.initial(1), list[Tensor]()
    for part in x.split(BLOCK, -1):
        y, state = layer(part, state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, -1), wanted.float(), rtol=2e-7, atol=1e-9)


def test_a_chunk_that_is_no_multiple_of_its_block_is_refused() -> None:
    layer = HighPass(RATE, 70)
    with pytest.raises(ValueError, match="expected a chunk of a multiple of 60"):
        layer(torch.zeros(1, 1, 100), layer.initial(1))


@pytest.fixture(scope="module")
def vc() -> rtvc.VoiceConverter:
    return rtvc.load()


def unfiltered(vc: rtvc.VoiceConverter, wave: Tensor, monkeypatch: pytest.MonkeyPatch) -> Voice:
    """The voice as it was made before there was a high-pass."""
    with monkeypatch.context() as patch:
        patch.setattr(HighPass, "forward", lambda self, x, state: (x, state))
        return vc.voice((wave.numpy(), RATE))


def distance(a: Tensor, b: Tensor) -> float:
    """Of two styles, in lengths of the second."""
    return float((a - b).norm() / b.norm())


def test_voices_of_clean_speech_hardly_change(
    vc: rtvc.VoiceConverter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The filter moves a style by less than half as much as another recording of the same person
    does: on average over 15 speakers of LibriSpeech by 0.18 of its length, where two recordings of
    one person are 0.44 apart. Here two halves of one recording stand for those."""
    wave = read(EXAMPLES / "source.flac")
    before, after = unfiltered(vc, wave, monkeypatch), vc.voice((wave.numpy(), RATE))
    halves = [unfiltered(vc, part, monkeypatch) for part in wave.split(len(wave) // 2 + 1)]
    assert distance(after.acoustic, before.acoustic) < min(
        0.25, 0.6 * distance(halves[0].acoustic, halves[1].acoustic)
    )


def louder(vc: rtvc.VoiceConverter, voice: Voice, clean: np.ndarray, dirty: np.ndarray) -> float:  # type: ignore[type-arg]
    """By how many dB a source with a disturbance is converted louder than without."""
    powers = [
        np.mean(vc.convert(wave.astype(np.float32), RATE, voice) ** 2) for wave in (dirty, clean)
    ]
    return float(10 * np.log10(powers[0] / powers[1]))


@pytest.mark.parametrize(("gain", "offset"), [(0.7, 0.1), (0.5, 0.2)])
def test_dc_in_a_source_does_not_reach_the_level(
    vc: rtvc.VoiceConverter, gain: float, offset: float
) -> None:
    x, voice = gain * read(EXAMPLES / "source.flac").numpy(), vc.voice(EXAMPLES / "reference.flac")
    assert abs(louder(vc, voice, x, x + offset)) < 0.5


def test_more_than_half_of_what_hum_did_to_the_level_is_gone(
    vc: rtvc.VoiceConverter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """50 Hz at -20 dBFS, as loud as the speech itself: 6.2 dB louder without the filter, 2.9 dB
    with it.
    """
    x, voice = read(EXAMPLES / "source.flac").numpy(), vc.voice(EXAMPLES / "reference.flac")
    hum = 0.1414 * np.sin(2 * math.pi * 50 * np.arange(len(x)) / RATE)
    after = louder(vc, voice, x, x + hum)
    with monkeypatch.context() as patch:
        patch.setattr(HighPass, "forward", lambda self, x, state: (x, state))
        before = louder(vc, voice, x, x + hum)
    assert before > 5 and after < 0.5 * before, (before, after)


def test_dc_in_a_reference_does_not_change_the_voice(vc: rtvc.VoiceConverter) -> None:
    wave = read(EXAMPLES / "reference.flac").numpy()
    clean, dirty = vc.voice((0.7 * wave, RATE)), vc.voice((0.7 * wave + 0.1, RATE))
    assert distance(dirty.acoustic, clean.acoustic) < 0.02
