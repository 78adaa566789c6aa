"""A tiny model in place of the shipped one, and recordings to convert: what the API and the command
line are tested with."""

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from converters import TinyConverter
from torch import Tensor

from rtvc.models.streaming import assets
from rtvc.models_by_name import MODELS


class TinyModel(TinyConverter):
    """`TinyConverter` with style encoders: the acoustic style follows the spectrum's tilt, the
    prosodic one the level."""

    space = "tiny"

    def styles(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """wave (B, 1, N), N a multiple of 300 -> (B, 128) twice."""
        assert wave.shape[-1] % self.hop == 0
        tilt = wave.diff(dim=-1).square().mean((1, 2)) / wave.square().mean((1, 2))
        level = wave.square().mean((1, 2)).sqrt()
        ramp = torch.linspace(0, 1, 128)
        return tilt[:, None] * ramp, level[:, None] * (1 - ramp)


REPORT = {
    "path": "a.wav",
    "seconds": 7.0,
    "speech": 5.5,
    "snr": 40.0,
    "bandwidth": 8000.0,
    "clipped": 0.0,
    "level": -20.0,
    "grade": "good",
    "advice": [],
}
"""What a voice says of the recording that it was made of."""


class WholeModel:
    """A model that needs whole recordings: it returns them in reverse, times the first number of
    the acoustic style."""

    name, space, latency, streaming = "whole", "tiny", None, None

    def styles(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """As `Model.styles`."""
        return TinyModel().styles(wave)

    def convert(
        self, wave: Tensor, acoustic: Tensor, prosodic: Tensor, *, pitch: float, prosody: float
    ) -> Tensor:
        """As `Model.convert`."""
        return wave.flip(-1)


def use_tiny_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets `rtvc.load` find the stand-ins under the name of the shipped model, and one that needs
    whole recordings."""
    monkeypatch.setitem(MODELS, "whole", (__name__, "WholeModel"))
    monkeypatch.setattr(assets, "load_default", TinyModel)


def speech(
    seconds: float = 2.0, rate: int = 16_000, pitch: float = 120.0, seed: int = 0
) -> np.ndarray:
    """Something like speech: a buzz whose loudness comes and goes, with a little noise, (N,)
    float32."""
    at = np.arange(int(seconds * rate)) / rate
    buzz = sum(np.sin(2 * math.pi * pitch * k * at) / k for k in range(1, int(7200 / pitch)))
    noise = np.random.default_rng(seed).standard_normal(len(at)) * 0.001
    return (0.2 * buzz * np.clip(np.sin(2 * math.pi * 1.5 * at), 0, 1) + noise).astype(np.float32)


def recording(
    path: Path, seconds: float = 2.0, rate: int = 16_000, pitch: float = 120.0, gain: float = 1.0
) -> Path:
    """Writes `speech` to a file."""
    soundfile.write(path, gain * speech(seconds, rate, pitch), rate, subtype="FLOAT")
    return path


def recordings_here(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """me.wav, anna.wav and bob.wav in the folder, which is the working directory from now on, and
    the tiny models behind the command line."""
    use_tiny_models(monkeypatch)
    for name, pitch in (("me", 120.0), ("anna", 220.0), ("bob", 90.0)):
        recording(folder / f"{name}.wav", 2, pitch=pitch)
    monkeypatch.chdir(folder)
    return folder
