"""How tests of training begin a stage: a run's settings as TOML, and a trainer that says
nothing."""

from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from rtvc.train.config import load_config
from rtvc.train.loop import Trainer
from rtvc.train.registry import stage_type

RUN = """
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
validate_every = {validate_every}
tensorboard = false
[optimizer]
lr = {lr}
schedule = "constant"
"""
LABELLED = """
[data]
labelled = ["{folder}"]
batch = 3
frames = {frames}
held_out = {held_out}
"""


def run_settings(steps: int, lr: float, *, validate_every: int = 0, top: str = "") -> str:
    """The part that every stage has; `top` are lines of no table."""
    return RUN.format(steps=steps, lr=lr, validate_every=validate_every, top=top)


def labelled_settings(folder: Path, *, frames: int = 64, held_out: int = 2) -> str:
    """Where stages of the streaming model find their speech; keys of `[data]` may follow."""
    return LABELLED.format(folder=folder, frames=frames, held_out=held_out)


def begin(name: str, config: Path, run: Path, *overrides: str) -> Trainer:
    """A stage before its first step."""
    kind: Any = stage_type(name)
    settings = load_config(kind.config_type, config, overrides)
    torch.manual_seed(settings.seed)
    return Trainer(kind(settings), settings, run, console=Console(quiet=True))
