"""Puts the parts that several runs have trained into one file of the streaming model."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError
from safetensors.torch import save
from torch import Tensor

from rtvc.errors import CheckpointError
from rtvc.files import write
from rtvc.models.loading import filled, listed, outlined
from rtvc.models.streaming.assets import (
    DIAL,
    FORMATS,
    STREAMING,
    StreamingModel,
    load_file,
    save_file,
)
from rtvc.models.streaming.dial import DialConfig
from rtvc.models.streaming.eight_bits import packed
from rtvc.models.streaming.encoder import EncoderConfig
from rtvc.models.streaming.model import StreamingConfig
from rtvc.models.streaming.timbre import PARTS as TIMBRE_PARTS
from rtvc.printable import first_problem, printable
from rtvc.tensorfile import opened
from rtvc.train.state import Checkpoints, Origin, load_weights

Sizes = StreamingConfig | DialConfig | EncoderConfig
"""What runs say of the sizes of their models: the whole, or of stage `units` the encoder alone."""
PARTS = {"encoder", "pitch", "decoder", "affine", "targets", "acoustic", "prosodic"} | set(
    TIMBRE_PARTS
)
"""Parts of streaming models that have weights."""
PITCH_SIZES = {"pitch_hidden", "pitch_dilations", "pitch_bins", "pitch_highest"}
"""What a configuration says of the pitch network."""


@dataclass(frozen=True)
class Source:
    """What a run, or a file of an earlier model, gives."""

    path: Path
    parts: Mapping[str, Mapping[str, Tensor]]
    """Part of the model -> its state dict."""
    model: Sizes
    stage: str
    step: str

    def sizes(self, part: str) -> object:
        """What the run's configuration says of one part: two runs that disagree here do not fit
        together."""
        model = self.model
        if isinstance(model, StreamingConfig):
            # Its pitch network stands for itself: one that sings goes with a decoder that does not.
            return None if part == "pitch" else model.model_dump(exclude=PITCH_SIZES)
        if isinstance(model, EncoderConfig):
            return model if part == "encoder" else None
        if part == "encoder":
            return model.encoder
        if part == "pitch":
            return model.encoder.fall, model.model_dump(include=PITCH_SIZES)
        return model


def read_source(path: Path) -> Source:
    """The parts of a streaming model in a run directory, its exported weights, or a file that
    `save_file` wrote.

    Raises:
        CheckpointError: there are none, or their sizes cannot be told.
    """
    note = _note(path)
    loaded: Mapping[str, Mapping[str, Tensor]]
    if note.get("format") in FORMATS:
        model = load_file(path)
        loaded = {name: part.state_dict() for name, part in model.named_children()}
    else:
        loaded = load_weights(path)
    parts = {name: weights for name, weights in loaded.items() if weights and name in PARTS}
    if not parts:
        raise CheckpointError(
            f"{path} holds no part of a streaming model: name runs of stream_content,"
            " stream_pitch and stream, or of units, melody and joint"
        )
    try:
        if form := FORMATS.get(note.get("format", "")):
            config: Sizes = form.config.model_validate_json(note["config"])
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

    model: Sizes


def _note(path: Path) -> dict[str, str]:
    """What is written beside the weights."""
    file = path / "weights.safetensors" if path.is_dir() else path
    if file.exists():
        with opened(file) as tensors:
            return dict(tensors.metadata)
    checkpoint = Checkpoints(path).latest()  # a run that was killed before it exported weights
    if not checkpoint:
        return {}
    try:
        origin = Origin.model_validate(checkpoint[1])
    except ValidationError as error:
        raise CheckpointError(
            f"the checkpoint of {path} is not that of a run ({first_problem(error)}): name"
            " another run"
        ) from error
    return {"config": origin.config, "stage": origin.stage, "step": str(checkpoint[0])}


def assemble(sources: Sequence[Source]) -> StreamingModel:
    """One model of the parts of several sources; where two have the same part, the later one's is
    taken. Its sizes are those of the run that gives the decoder; a pitch network of the first
    generation brings its own.

    Raises:
        CheckpointError: a part is missing, or does not have the size that the others' configuration
            says.
    """
    chosen = {name: source for source in sources for name in source.parts}
    if "decoder" not in chosen:
        raise CheckpointError(
            f"expected a run that gives the decoder, got {', '.join(sorted(chosen)) or 'nothing'}:"
            " name runs of stream_content, stream_pitch and stream, or of units, melody and joint"
        )
    whole = chosen["decoder"]
    form = STREAMING if isinstance(whole.model, StreamingConfig) else DIAL
    config = whole.model
    if isinstance(config, StreamingConfig) and "pitch" in chosen:
        sung = chosen["pitch"].model
        if isinstance(sung, StreamingConfig):
            config = config.model_copy(update=sung.model_dump(include=PITCH_SIZES))
    model = outlined(lambda: form.build(config), "the runs' configuration")
    needed = [name for name, child in model.named_children() if child.state_dict()]
    if missing := [name for name in needed if name not in chosen]:
        raise CheckpointError(
            f"expected runs that give {', '.join(missing)}, got"
            f" {', '.join(str(s.path) for s in sources)}: stream_content or units train the"
            " encoder, stream_pitch or melody the pitch, stream or joint all the others"
        )
    for name in needed:
        if chosen[name].sizes(name) != whole.sizes(name):
            raise CheckpointError(
                f"the runs are of models of different sizes, {whole.path} has {whole.model} and"
                f" {chosen[name].path} {chosen[name].model}: train them with one [model]"
            )
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


def export(
    paths: Sequence[Path], out: Path, facts: Mapping[str, str] | None = None, sharpen: float = 0.0
) -> Path:
    """Writes one file of the streaming model, its origin in the header: parts, stages, steps, the
    commit of the code.

    Args:
        paths: run directories, exported weights, or files of earlier models, in the order in which
            later ones replace earlier ones.
        out: safetensors file.
        facts: added to the header.
        sharpen: strength of `Decoder.sharpen`; what it was is in the header as well.
    """
    sources = [read_source(path) for path in paths]
    model = assemble(sources)
    if sharpen:
        model.decoder.sharpen(sharpen)
        facts = {"sharpened": f"{sharpen:g}", **(facts or {})}
    origin = {
        name: f"{source.stage} step {source.step}" for source in sources for name in source.parts
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    return save_file(
        model,
        out,
        {"parts": json.dumps(origin, sort_keys=True), "commit": commit(), **(facts or {})},
    )


def keep(run: Path, out: Path) -> Path:
    """Writes the averaged weights of a run in eight bits each, every module that it has: small
    enough for a repository, and what `[[init]]` goes on from where the run itself was lost.

    Args:
        run: directory of the run.
        out: safetensors file.

    Raises:
        CheckpointError: there are no weights in the run.
    """
    flat = {
        f"{module}.{name}": tensor
        for module, state in load_weights(run).items()
        for name, tensor in state.items()
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write(out, save(packed(flat), {**_note(run), "commit": commit()}))
    return out


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
