"""Naturalness without a reference: DNSMOS P.835 (Reddy et al. 2022), predicted opinion scores from
1 to 5."""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from rtvc.evaluate.audio import Wave, at_16k
from rtvc.evaluate.judges.optional import need, one_thread


@functools.cache
def _predictor() -> Any:
    """The package's predictor, its two sessions opened on one thread: its own `run` would take
    every core."""
    module, runtime = need("speechmos.dnsmos"), need("onnxruntime")
    folder = Path(module.__file__).parent / "dnsmos_models"
    options = one_thread(runtime)
    predictor = module.DNSMOS.__new__(module.DNSMOS)
    predictor.onnx_sess = runtime.InferenceSession(
        str(folder / "sig_bak_ovr.onnx"), options, providers=["CPUExecutionProvider"]
    )
    predictor.p808_onnx_sess = runtime.InferenceSession(
        str(folder / "model_v8.onnx"), options, providers=["CPUExecutionProvider"]
    )
    return predictor


def dnsmos(wave: Wave) -> dict[str, float]:
    """(N,) at 24 kHz -> `ovrl`, `sig` and `bak`: overall, speech and background quality.

    A wave shorter than 9.01 s is repeated and a longer one averaged over windows, as the authors'
    script does.
    """
    samples = np.clip(at_16k(wave), -1, 1)
    scores = _predictor()(samples, 16000, False)
    return {name: float(scores[f"{name}_mos"]) for name in ("ovrl", "sig", "bak")}
