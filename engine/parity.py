"""How far an engine is from the model it was built of, on a recording: by the step and by the
stream."""

from typing import TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rtvc.engine.backends.base import Backend
from rtvc.engine.trial import fidelity
from rtvc.errors import EngineError
from rtvc.voices.voice import Voice


class Parity(TypedDict):
    """What was compared.

    Attributes:
        steps: of both.
        step_db: signal over error of the samples, in dB, every step from the model's own state:
            rounding, and nothing else.
        step_largest: the largest difference of a sample so, full scale 1.
        stream_db: signal over error of the samples when the engine keeps its own state. Pitch is
            added up to phases, so differences too small to hear grow here.
        fidelity_db: the same of magnitude spectra, which do not know of phases: what is heard.
    """

    steps: int
    step_db: float
    step_largest: float
    stream_db: float
    fidelity_db: float


def parity(built: Backend, model: Backend, voice: Voice, wave: Tensor) -> Parity:
    """Both say the same.

    Args:
        built: the engine.
        model: what it was built of, in plain torch, with the same chunk.
        voice: of the model's style space.
        wave: (N,) at the model's rate.

    Raises:
        EngineError: chunks that differ, or not one whole step.
    """
    chunk = built.chunk
    if model.chunk != chunk or len(wave) < chunk:
        raise EngineError(
            f"expected at least one step of {model.chunk} samples, got {len(wave)} samples and"
            f" steps of {chunk}: use a longer recording"
        )
    pieces = F.pad(wave, (0, -len(wave) % chunk)).split(chunk)
    conditions = built.condition(voice), model.condition(voice)
    state, own = model.initial(1), built.initial(1)
    exact, close, alone = [], [], []
    for piece in pieces:
        x = piece[None, None]
        same = built.layout.taken(state, model.layout)
        close.append(built.step(x.to(built.device), conditions[0], same)[0])
        y, own = built.step(x.to(built.device), conditions[0], own)
        alone.append(y)
        y, state = model.step(x.to(model.device), conditions[1], state)
        exact.append(y)
    truth, near, drifted = (
        torch.cat([y.cpu() for y in parts], -1).flatten().double().numpy()
        for parts in (exact, close, alone)
    )
    return Parity(
        steps=len(pieces),
        step_db=round(signal_over_error(near, truth), 1),
        step_largest=float(np.abs(near - truth).max()),
        stream_db=round(signal_over_error(drifted, truth), 1),
        fidelity_db=round(fidelity(drifted, truth), 1),
    )


def signal_over_error(got: np.ndarray, expected: np.ndarray) -> float:
    """Of samples (N,) each, in dB."""
    error = max(float(np.square(got - expected).sum()), 1e-30)
    return 10 * float(np.log10(max(float(np.square(expected).sum()), 1e-30) / error))
