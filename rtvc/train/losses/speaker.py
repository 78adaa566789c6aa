"""Resemblyzer's speaker encoder as a differentiable module: a teacher for styles and a judge of
conversions.

Source: Wan et al. 2018, "Generalized End-to-End Loss for Speaker Verification"; weights of the
package Resemblyzer (Apache-2.0).
"""

import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rtvc.audio.mel import SAMPLE_RATE
from rtvc.errors import DependencyError
from rtvc.models.loading import load_into
from rtvc.train.state import load_tensors

RATE, SIZE = 16_000, 400
"""Sample rate and window of the original, in samples."""
WINDOW, STEP = SIZE * SAMPLE_RATE // RATE, 10 * SAMPLE_RATE // 1000
"""The same 25 ms and 10 ms at 24 kHz: the spectrum's bins lie at the same frequencies, 40 Hz
apart."""
BANDS, EMBEDDING = 40, 256
QUIET_DB = -30.0
"""Level to which quieter recordings are raised."""


def slaney_filters(bands: int, size: int, rate: int) -> Tensor:
    """Mel filters of equal area, linear below 1 kHz (Slaney 1998, "Auditory Toolbox"), (bands, size
    / 2 + 1)."""
    step, knee = 200 / 3, 1000.0
    ratio = np.log(6.4) / 27
    top = knee / step + np.log(rate / 2 / knee) / ratio
    mels = np.linspace(0, top, bands + 2)
    corners = np.where(mels < knee / step, mels * step, knee * np.exp(ratio * (mels - knee / step)))
    bins = np.linspace(0, rate / 2, size // 2 + 1)
    slopes = corners[:, None] - bins
    widths = np.diff(corners)[:, None]
    filters = np.maximum(0, np.minimum(-slopes[:-2] / widths[:-1], slopes[2:] / widths[1:]))
    return torch.from_numpy(filters * (2 / (corners[2:] - corners[:-2]))[:, None]).float()


def weights_path() -> Path:
    """Where the installed package keeps its weights; the package itself is not imported.

    Raises:
        DependencyError: it is not installed.
    """
    spec = importlib.util.find_spec("resemblyzer")
    if spec is None or spec.origin is None:
        raise DependencyError(
            "speaker losses need Resemblyzer: pip install --no-deps Resemblyzer, or set"
            " weights.embedding and weights.consistency to 0"
        )
    return Path(spec.origin).parent / "pretrained.pt"


def power_spectrum(wave: Tensor, window: Tensor) -> Tensor:
    """wave (B, N) at 24 kHz, window (WINDOW,) -> the power (B, SIZE / 2 + 1, T) that a window of
    SIZE samples at 16 kHz shows of it, every 10 ms."""
    spectrum = torch.stft(wave, WINDOW, STEP, window=window, return_complex=True)
    heard = torch.view_as_real(spectrum[:, : SIZE // 2 + 1])
    return heard.square().sum(-1) * (SIZE / WINDOW) ** 2


class SpeakerEncoder(nn.Module):
    """wave (B, N) at 24 kHz -> embedding (B, 256) of length 1, from one window over the whole
    recording; weights are fixed.

    The names of its weights are those of the package.
    """

    filters: Tensor
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(BANDS, EMBEDDING, 3, batch_first=True)
        self.linear = nn.Linear(EMBEDDING, EMBEDDING)
        self.register_buffer("filters", slaney_filters(BANDS, SIZE, RATE), persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
        self.requires_grad_(False)

    @classmethod
    def pretrained(cls) -> "SpeakerEncoder":
        """With the package's weights."""
        encoder, path = cls(), weights_path()
        weights = load_tensors(path).get("model_state", {})
        load_into(
            encoder,
            {name: weights[name] for name in encoder.state_dict() if name in weights},
            str(path),
        )
        return encoder

    def forward(self, wave: Tensor) -> Tensor:
        """wave (B, N) -> (B, 256)."""
        with torch.autocast(wave.device.type, enabled=False):
            # It has no dropout, and cuDNN sends no gradients through an LSTM in evaluation mode
            self.lstm.train()
            wave = wave.float()
            level = wave.square().mean(-1, keepdim=True).clamp_min(1e-8).sqrt()
            wave = wave * (10 ** (QUIET_DB / 20) / level).clamp_min(1.0)
            mel = self.filters @ power_spectrum(wave, self.window)
            _, (last, _) = self.lstm(mel.mT)
            embedding = torch.relu(self.linear(last[-1]))
            unit: Tensor = embedding / embedding.norm(dim=1, keepdim=True).clamp_min(1e-6)
            return unit


def cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    """1 minus the cosine of embeddings (B, C) of length 1, averaged over the rows."""
    return 1 - (a * b).sum(1).mean()
