"""Teachers for tests: the real one where it is imported or can be, and one of random weights that
needs no download."""

from typing import Any

import numpy as np
import pytest
import torch

from rtvc.errors import CheckpointError, DependencyError
from rtvc.models.styletts2.decoder import Decoder
from rtvc.models.styletts2.generator import ISTFTNetGenerator
from rtvc.teacher.bank import VoiceBank
from rtvc.teacher.kokoro import Teacher
from rtvc.teacher.network import Kokoro
from rtvc.teacher.phonemes import Alphabet
from rtvc.teacher.weights import import_kokoro

SYMBOLS = " ˈˌabdefhijklmnopstuvwzæðŋɑɔəɛɜɡɪɹʃʊʌʒθː.,"


def real_teacher(dtype: torch.dtype = torch.float32) -> Teacher:
    """The imported teacher; fetched if need be, and the test skipped where that is impossible."""
    try:
        import_kokoro()
        return Teacher.load(dtype=dtype)
    except (DependencyError, CheckpointError) as error:
        pytest.skip(f"the teacher is not in the cache and cannot be imported here: {error}")


def small_decoder() -> Decoder:
    """The decoder of a tenth of Kokoro's width."""
    return Decoder(ISTFTNetGenerator(channels=48), width=64, residual_dim=8, generator_channels=48)


def random_teacher(dtype: torch.dtype = torch.float64) -> Teacher:
    """Random weights, but natural durations (about 2 frames a phoneme) and a voiced F0 near 150 Hz;
    three voices."""
    torch.manual_seed(0)
    network = Kokoro(small_decoder())
    network.predictor.duration_proj.linear_layer.bias.fill_(-3.0)
    network.predictor.F0_proj.bias.fill_(150.0)  # type: ignore[operator]
    network.decoder.generator.conv_post.bias.fill_(-1.0)  # type: ignore[operator, union-attr]
    draw = torch.Generator().manual_seed(1)
    bank = VoiceBank(
        {name: torch.randn(510, 256, generator=draw) for name in ("af_one", "am_two", "bf_three")}
    )
    return Teacher(
        network,
        bank,
        Alphabet({symbol: token for token, symbol in enumerate(SYMBOLS, 1)}),
        dtype=dtype,
    )


def relative(x: Any, y: Any) -> float:
    """Relative L2 error of x against y."""
    x, y = (np.asarray(v, np.float64).ravel() for v in (x, y))
    return float(np.linalg.norm(x - y) / np.linalg.norm(y))
