"""Naturalness by a second judge, which no training ever sees: DistillMOS (Stahl and Gamper 2025,
arXiv 2502.05356)."""

import contextlib
import functools
import importlib.util
import io
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import torch

from rtvc.evaluate.audio import Wave, at_16k
from rtvc.evaluate.judges.optional import need


@functools.cache
def judge() -> Callable[[Wave], float]:
    """A predictor of mean opinion scores: (N,) at 24 kHz -> 1 to 5, on torch's own threads.

    Windows of 7.68 s at most a second apart, as the authors average them; a shorter wave is
    followed by silence.

    Raises:
        DependencyError: the packages distillmos and xls-r-sqa are not installed.
    """
    with (
        _without_torchaudio(),
        contextlib.redirect_stdout(io.StringIO()),
    ):  # it prints where its weights were
        model: Any = need("distillmos").ConvTransformerSQAModel().eval()

    def score(wave: Wave) -> float:
        samples = at_16k(wave)
        with torch.inference_mode():
            return float(model(torch.from_numpy(np.ascontiguousarray(samples))[None]))

    return score


@contextlib.contextmanager
def _without_torchaudio() -> Iterator[None]:
    """The package imports torchaudio, which only its command uses, to read files: an empty module
    does where there is none."""
    if importlib.util.find_spec("torchaudio") is not None:
        yield
        return
    sys.modules["torchaudio"] = ModuleType("torchaudio")
    try:
        yield
    finally:
        del sys.modules["torchaudio"]
