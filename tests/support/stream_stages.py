"""Stages of the streaming model at a few numbers a layer, and the files that start them."""

import json
from pathlib import Path

import torch

from tests.support.small_models import SIZES
from tests.support.train_runs import labelled_settings, run_settings


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
    run = run_settings(steps, lr, top=top) + labelled_settings(folder)
    file.write_text(f"{run}[weights]\n{weights}\n[model]\n{sizes}")
    return file
