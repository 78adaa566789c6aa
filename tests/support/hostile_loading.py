"""Loads hostile files and holds every loader to its promise: it loads, or raises what it documents,
in words for a terminal."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hostile_files import HostileFiles, converter

from rtvc.engine.graph.manifest import read_manifest
from rtvc.engine.identity import check
from rtvc.errors import (
    CheckpointError,
    ConfigError,
    EngineError,
    RtvcError,
    TrainingError,
    VoiceError,
)
from rtvc.models.checkpoints import load_checkpoint
from rtvc.models.streaming import load_file
from rtvc.teacher.weights import describe, load
from rtvc.train.config import load_config
from rtvc.train.registry import stage_type
from rtvc.train.state import Checkpoints, load_weights
from rtvc.voices.voice import Voice


def use_voice(path: Path) -> None:
    """Everything that is shown of a voice, and what a model takes of it."""
    voice = Voice.load(path)
    assert np.isfinite(voice.speech) and voice.speech >= 0
    told = [
        repr(voice),
        voice.name,
        str(voice.space),
        str(voice.fitted),
        *(name for _, name in voice.parts),
    ]
    for entry in voice.references:
        told += [
            entry["path"],
            entry["grade"],
            *entry["advice"],
            f"{entry['bandwidth'] / 1000:.1f} {entry['clipped']:.1%}",
        ]
    assert all(text.isprintable() for text in told)
    assert all(0 <= share <= 1 for share, _ in voice.parts)
    assert voice.acoustic.isfinite().all() and voice.prosodic.isfinite().all()
    assert voice.fine is None or voice.fitted is not None
    voice.save(path.with_name("again.voice"))


def use_weights(path: Path) -> None:
    """Weights that load are those of the file, on the CPU, and finite."""
    for module in load_checkpoint(path).components.values():
        assert all(
            tensor.device.type == "cpu" and tensor.isfinite().all()
            for tensor in module.state_dict().values()
        )


def use_model(path: Path) -> None:
    """The streaming model: loaded, it runs."""
    model = load_file(path)
    assert all(
        tensor.device.type == "cpu" and tensor.isfinite().all()
        for tensor in [*model.parameters(), *model.buffers()]
    )
    with torch.inference_mode():
        model(
            torch.zeros(1, 1, 300),
            model.condition(torch.zeros(1, 128), torch.zeros(1, 128)),
            model.initial(1),
        )


def use_engine(path: Path) -> None:
    """A manifest is read, and compared with the model."""
    check(read_manifest(path), converter(), path)


def use_run(path: Path) -> None:
    """Newest checkpoint, and its weights."""
    Checkpoints(path).latest()
    load_weights(path)


def use_teacher(path: Path) -> None:
    """What `rtvc weights show` says, and the teacher itself."""
    describe(path)
    load(path)


def use_config(path: Path) -> None:
    """The configuration of the stage that the file is named for, with what lies beside it as
    `--set`."""
    kind: Any = stage_type(path.stem)
    load_config(kind.config_type, path)
    load_config(
        kind.config_type, path, path.with_suffix(".set").read_text(encoding="utf-8").splitlines()
    )


KINDS: dict[str, tuple[Callable[[Path], None], tuple[type[RtvcError], ...]]] = {
    "authors": (use_weights, (CheckpointError,)),
    "ours": (use_model, (CheckpointError,)),
    "voice": (use_voice, (VoiceError,)),
    "teacher": (use_teacher, (CheckpointError, VoiceError)),
    "run": (use_run, (CheckpointError, TrainingError)),
    "manifest": (use_engine, (EngineError,)),
    "toml": (use_config, (ConfigError,)),
}
"""What loads each kind of file, and what it may raise."""


def attempt(chance: Any, folder: Path, kind: str | None = None) -> tuple[str, bool]:
    """Makes and loads one hostile file; returns its kind and whether it loaded."""
    made = HostileFiles(chance)
    kind = made.pick(sorted(KINDS)) if kind is None else kind
    use, errors = KINDS[kind]
    path = getattr(made, kind)(folder)
    try:
        use(path)
    except errors as error:
        told = str(error)
        assert told and len(told) <= 10_000
        assert all(c.isprintable() or c == "\n" for c in told), told
        return kind, False
    return kind, True
