"""Stages of the streaming model at a few numbers a layer, and the files that start them."""

import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from rtvc.train.config import load_config
from rtvc.train.loop import Trainer
from rtvc.train.registry import stage_type

SIZES = {
    "content_hidden": 16,
    "content_dilations": (1, 2),
    "pitch_hidden": 16,
    "pitch_dilations": (1, 2),
    "decoder_hidden": 16,
    "decoder_dilations": (1, 2),
    "acoustic_hidden": 8,
    "prosodic_hidden": 8,
}

TINY = """
steps = {steps}
device = "cpu"
workers = 0
ema = 0.5
{top}
[checkpoint]
every = 1000
[log]
every = 2
sample_every = 0
validate_every = 0
tensorboard = false
[optimizer]
lr = {lr}
schedule = "constant"
[data]
labelled = ["{folder}"]
batch = 3
frames = 64
held_out = 2
[weights]
{weights}
[model]
"""


class Stand(torch.nn.Module):
    """In place of Resemblyzer, which may not be installed: the averages of some bands of the
    spectrum."""

    @classmethod
    def pretrained(cls) -> "Stand":
        return cls()

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        spectrum = torch.view_as_real(torch.fft.rfft(wave[:, :6000].float())).square().sum(-1)
        bands = torch.nn.functional.adaptive_avg_pool1d(spectrum, 256).clamp_min(1e-6).log() + 14
        return torch.nn.functional.normalize(bands, dim=1)


def config(
    path: Path, folder: Path, steps: int = 24, lr: float = 3e-3, weights: str = "", top: str = ""
) -> Path:
    sizes = "".join(f"{name} = {json.dumps(value)}\n" for name, value in SIZES.items())
    path.mkdir(exist_ok=True)
    file = path / "config.toml"
    file.write_text(
        TINY.format(steps=steps, lr=lr, folder=folder, weights=weights, top=top) + sizes
    )
    return file


def trainer(name: str, file: Path, run: Path, *overrides: str) -> Trainer:
    kind: Any = stage_type(name)
    settings = load_config(kind.config_type, file, overrides)
    torch.manual_seed(settings.seed)
    return Trainer(kind(settings), settings, run, console=Console(quiet=True))
