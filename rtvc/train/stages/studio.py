"""Makes the studio model's file: the trained mel encoder, and a map from rtvc's acoustic style into
the teacher's.

The map is a ridge regression over the teacher's own utterances, whose styles are known exactly;
mixes of voices, as `rtvc teacher generate` draws them, fill the space between the voices.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rtvc.arrays import opened_arrays
from rtvc.audio.energy import energy
from rtvc.audio.mel import HOP
from rtvc.errors import TrainingError
from rtvc.layers.contract import offline
from rtvc.models.loading import load_into
from rtvc.models.streaming import StreamingConverter
from rtvc.models.streaming.analysis import BANDS
from rtvc.models.studio import StudioConverter, speech_level
from rtvc.models.styletts2.decoder import ISTFTNetDecoder

FEWEST = 40
"""Utterances below which a regression of 128 numbers on 128 means nothing."""


@dataclass(frozen=True)
class StyleMap:
    """An affine map between style spaces, and what is known of it."""

    weight: Tensor
    """(128, 128), output first."""
    bias: Tensor
    """(128,)"""
    level: float
    """Mean log energy of the teacher's speech."""
    r2: float
    """Share of the styles' variance that is explained on every fifth utterance, held out."""


def teacher_styles(files: Iterable[Path]) -> Iterator[tuple[Tensor, Tensor]]:
    """Waves (1, 1, N) and acoustic styles (128,) of files that `rtvc teacher generate` wrote."""
    for path in files:
        with opened_arrays(path) as arrays:
            if "style" not in arrays.names:
                continue
            wave, style = (
                arrays["audio"].astype(np.float32) / 32768,
                arrays["style"][:128].astype(np.float32),
            )
        yield torch.from_numpy(wave[: len(wave) // HOP * HOP])[None, None], torch.from_numpy(style)


@torch.inference_mode()
def fit_style_map(model: StreamingConverter, files: Iterable[Path], ridge: float = 1.0) -> StyleMap:
    """Regresses the teacher's styles on the model's.

    Args:
        model: whose acoustic style encoder is the input.
        files: of the teacher.
        ridge: penalty, in units of the mean variance of an input.

    Raises:
        TrainingError: fewer utterances than make sense.
    """
    inputs, outputs, levels = [], [], []
    for wave, style in teacher_styles(files):
        inputs.append(model.styles(wave)[0][0])
        outputs.append(style)
        levels.append(speech_level(energy(offline(model.analysis, wave)[:, :BANDS])[:, 0]))
    if len(inputs) < FEWEST:
        raise TrainingError(
            f"expected at least {FEWEST} utterances of the teacher, got {len(inputs)}: run `rtvc"
            " teacher generate`"
        )
    x, y = torch.stack(inputs).double(), torch.stack(outputs).double()
    held = torch.arange(len(x)) % 5 == 0
    weight, bias = _ridge(x[~held], y[~held], ridge)
    missed = y[held] - (x[held] @ weight.T + bias)
    r2 = 1 - missed.square().sum() / (y[held] - y[~held].mean(0)).square().sum()
    weight, bias = _ridge(x, y, ridge)
    return StyleMap(weight.float(), bias.float(), float(torch.stack(levels).mean()), float(r2))


def _ridge(x: Tensor, y: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Weight (out, in) and bias (out,) of a ridge regression."""
    centre, mean = x.mean(0), y.mean(0)
    a, b = x - centre, y - mean
    covariance = a.T @ a
    penalty = strength * covariance.diagonal().mean() * torch.eye(x.shape[1], dtype=x.dtype)
    weight = torch.linalg.solve(covariance + penalty, a.T @ b).T
    return weight, mean - weight @ centre


def assemble(
    stream: StreamingConverter,
    decoder: ISTFTNetDecoder,
    mel_encoder: dict[str, Tensor],
    style_map: StyleMap,
) -> StudioConverter:
    """The studio model of its parts."""
    model = StudioConverter(stream, decoder)
    load_into(model.mel_encoder, mel_encoder, "the run's mel_encoder")
    model.style_map.weight.data, model.style_map.bias.data = style_map.weight, style_map.bias
    model.level.fill_(style_map.level)
    return model.requires_grad_(False).eval()
