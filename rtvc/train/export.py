"""Puts the parts that several runs have trained into one file of the streaming model."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError
from torch import Tensor

from rtvc.errors import CheckpointError
from rtvc.models.loading import filled, listed, outlined
from rtvc.models.streaming.assets import FORMAT, save_file
from rtvc.models.streaming.model import StreamingConfig, StreamingConverter
from rtvc.printable import first_problem, printable
from rtvc.tensorfile import opened
from rtvc.train.state import Checkpoints, Origin, load_weights


@dataclass(frozen=True)
class Source:
    """What a run, or a file of an earlier model, gives."""

    path: Path
    parts: Mapping[str, Mapping[str, Tensor]]
    """Part of the model -> its state dict."""
    model: StreamingConfig
    stage: str
    step: str


def read_source(path: Path) -> Source:
    """The parts of the streaming model in a run directory, its exported weights, or a file that
    `save_file` wrote.

    Raises:
        CheckpointError: there are none, or their sizes cannot be told.
    """
    model = outlined(StreamingConverter, "the shipped sizes")
    wanted = {name for name, child in model.named_children() if child.state_dict()}
    parts = {name: weights for name, weights in load_weights(path).items() if name in wanted}
    if not parts:
        raise CheckpointError(
            f"{path} holds no part of the streaming model: name runs of stream_content,"
            " stream_pitch and stream"
        )
    note = _note(path)
    try:
        if note.get("format") == FORMAT:
            config = StreamingConfig.model_validate_json(note["config"])
        else:
            config = RunNote.model_validate_json(note["config"]).model
    except KeyError as error:
        raise CheckpointError(
            f"{path} does not say what sizes its model has: export it with this version's stages"
        ) from error
    except ValidationError as error:
        raise CheckpointError(
            f"{path} does not say what sizes its model has ({first_problem(error)}): export it with"
            " this version's stages"
        ) from error
    return Source(
        path,
        parts,
        config,
        printable(note.get("stage", "stream")),
        printable(note.get("step", "?")),
    )


class RunNote(BaseModel):
    """What a run's configuration says of its model."""

    model: StreamingConfig


def _note(path: Path) -> dict[str, str]:
    """What is written beside the weights."""
    file = path / "weights.safetensors" if path.is_dir() else path
    if file.exists():
        with opened(file) as tensors:
            return dict(tensors.metadata)
    found = Checkpoints(path).latest()  # a run that was killed before it exported weights
    if not found:
        return {}
    try:
        told = Origin.model_validate(found[1])
    except ValidationError as error:
        raise CheckpointError(
            f"the checkpoint of {path} is not that of a run ({first_problem(error)}): name"
            " another run"
        ) from error
    return {"config": told.config, "stage": told.stage, "step": str(found[0])}


def assemble(sources: Sequence[Source]) -> StreamingConverter:
    """One model of the parts of several sources; where two have the same part, the later one's is
    taken.

    Raises:
        CheckpointError: a part is missing, or does not have the size that the others' configuration
            says.
    """
    if not sources:
        raise CheckpointError(
            "nothing to put together: name runs of stream_content, stream_pitch and stream"
        )
    chosen = {name: source for source in sources for name in source.parts}
    sizes = {source.model for source in chosen.values()}
    if len(sizes) > 1:
        first, *_ = differing = [
            f"{source.path} has {source.model}"
            for source in {s.model: s for s in chosen.values()}.values()
        ]
        raise CheckpointError(
            f"the runs are of models of different sizes, {first} and {differing[1]}: train them"
            " with one [model]"
        )
    (size,) = sizes
    model = outlined(lambda: StreamingConverter(size), "the runs' configuration")
    needed = [name for name, child in model.named_children() if child.state_dict()]
    if missing := [name for name in needed if name not in chosen]:
        raise CheckpointError(
            f"no run gives {', '.join(missing)}; {', '.join(str(s.path) for s in sources)} came: "
            "stream_content trains encoder, stream_pitch pitch, stream all the others"
        )
    for name in needed:
        filled(
            model.get_submodule(name), chosen[name].parts[name], f"{name} of {chosen[name].path}"
        )
    if bad := [
        name for name, weight in model.state_dict().items() if not weight.half().isfinite().all()
    ]:
        raise CheckpointError(
            f"{listed(bad)} cannot be written in float16, some weights are too large: the run has"
            " diverged"
        )
    return model.eval()


def export(paths: Sequence[Path], out: Path, facts: Mapping[str, str] | None = None) -> Path:
    """Writes one file of the streaming model, its origin in the header: parts, stages, steps, the
    commit of the code.

    Args:
        paths: run directories, exported weights, or files of earlier models, in the order in which
            later ones replace earlier ones.
        out: safetensors file.
        facts: added to the header.
    """
    sources = [read_source(path) for path in paths]
    model = assemble(sources)
    origin = {
        name: f"{source.stage} step {source.step}" for source in sources for name in source.parts
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    return save_file(
        model,
        out,
        {"parts": json.dumps(origin, sort_keys=True), "commit": commit(), **(facts or {})},
    )


def commit() -> str:
    """The commit of the code that runs, `+` behind it when the files differ; `unknown` outside a
    checkout."""
    here = Path(__file__).parent
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return told.stdout.strip()
