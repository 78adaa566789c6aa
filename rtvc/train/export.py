"""Puts the parts that several runs have trained into one file of the streaming model."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydantic
import torch
from torch import Tensor

from rtvc.errors import CheckpointError
from rtvc.models.streaming.assets import FORMAT, save_file
from rtvc.models.streaming.model import StreamingConfig, StreamingConverter
from rtvc.train.state import Checkpoints, load_weights


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
    """The parts of the streaming model in a run directory, its exported weights, or a file that `save_file` wrote.

    Raises:
        CheckpointError: there are none, or their sizes cannot be told.
    """
    wanted = {name for name, child in StreamingConverter().named_children() if child.state_dict()}
    parts = {name: weights for name, weights in load_weights(path).items() if name in wanted}
    if not parts:
        raise CheckpointError(f"{path} holds no part of the streaming model: name runs of stream_content, stream_pitch and stream")
    note = _note(path)
    try:
        config = json.loads(note["config"])
        model = StreamingConfig.model_validate(config if note.get("format") == FORMAT else config["model"])
    except (KeyError, TypeError, ValueError, pydantic.ValidationError) as error:
        raise CheckpointError(f"{path} does not say what sizes its model has ({error}): export it with this version's stages") from error
    return Source(path, parts, model, note.get("stage", "stream"), note.get("step", "?"))


def _note(path: Path) -> dict[str, str]:
    """What is written beside the weights."""
    file = path / "weights.safetensors" if path.is_dir() else path
    if file.exists():
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, "pt") as opened:
                return dict(opened.metadata() or {})
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file} is not a readable safetensors file: {error}") from error
    found = Checkpoints(path).latest()  # a run that was killed before it exported weights
    return {"config": found[1]["config"], "stage": found[1]["stage"], "step": str(found[0])} if found else {}


def assemble(sources: Sequence[Source]) -> StreamingConverter:
    """One model of the parts of several sources; where two have the same part, the later one's is taken.

    Raises:
        CheckpointError: a part is missing, or does not have the size that the others' configuration says.
    """
    if not sources:
        raise CheckpointError("nothing to put together: name runs of stream_content, stream_pitch and stream")
    chosen = {name: source for source in sources for name in source.parts}
    sizes = {source.model for source in chosen.values()}
    if len(sizes) > 1:
        first, *_ = differing = [f"{source.path} has {source.model}" for source in {s.model: s for s in chosen.values()}.values()]
        raise CheckpointError(f"the runs are of models of different sizes, {first} and {differing[1]}: train them with one [model]")
    model = StreamingConverter(sizes.pop())
    needed = [name for name, child in model.named_children() if child.state_dict()]
    if missing := [name for name in needed if name not in chosen]:
        raise CheckpointError(
            f"no run gives {', '.join(missing)}; {', '.join(str(s.path) for s in sources)} came: "
            "stream_content trains encoder, stream_pitch pitch, stream all the others"
        )
    for name in needed:
        try:
            model.get_submodule(name).load_state_dict(chosen[name].parts[name])
        except RuntimeError as error:
            raise CheckpointError(f"{name} of {chosen[name].path} does not fit the model: {error}") from error
    if bad := [name for name, weight in model.state_dict().items() if not torch.isfinite(weight.half().float()).all()]:
        raise CheckpointError(f"{', '.join(bad)} cannot be written in float16, some weights are not finite: the run has diverged")
    return model.eval()


def export(paths: Sequence[Path], out: Path, facts: Mapping[str, str] | None = None) -> Path:
    """Writes one file of the streaming model, its origin in the header: parts, stages, steps, the commit of the code.

    Args:
        paths: run directories, exported weights, or files of earlier models, in the order in which later ones replace earlier ones.
        out: safetensors file.
        facts: added to the header.
    """
    sources = [read_source(path) for path in paths]
    model = assemble(sources)
    origin = {name: f"{source.stage} step {source.step}" for source in sources for name in source.parts}
    out.parent.mkdir(parents=True, exist_ok=True)
    return save_file(model, out, {"parts": json.dumps(origin, sort_keys=True), "commit": commit(), **(facts or {})})


def commit() -> str:
    """The commit of the code that runs, `+` behind it when the files differ; `unknown` outside a checkout."""
    here = Path(__file__).parent
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"], cwd=here, capture_output=True, text=True, check=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return told.stdout.strip()
