"""Half an hour of a GPU elsewhere: labelled speech packed small, a command that trains by the
clock, weights that come home in parts.

    python -m rtvc.train.on_gpu pack data/units/corpus data/units/extra -o run/gpu --hours 12
    # there, unpack again for every piece that arrives
    python -m rtvc.train.on_gpu unpack run/gpu -o data/units/gpu
    python -m rtvc.train.on_gpu train joint data/units/gpu --minutes 24 \\
        --init run/gpu/start.safetensors -o run/home
    # here
    python -m rtvc.train.on_gpu join run/home -o runs/from_gpu/weights.safetensors

A piece is a zip of at most so many megabytes: audio as Opus, labels compressed. Weights are
float16, split by size.
"""

import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from rtvc.arrays import opened_arrays
from rtvc.audio.mel import SAMPLE_RATE
from rtvc.data.utterance import Utterance, load_utterance, save_utterance
from rtvc.errors import AudioError, CheckpointError, TrainingError
from rtvc.files import read_json, write
from rtvc.tensorfile import opened

MEGABYTE = 1_000_000
COMPRESSION = 0.92
"""Of libsndfile's Opus: about 28 kbit/s, at which the encoder hears no difference."""
MOST_MEGABYTES = 64.0
GPU_SETTINGS = (
    "precision=bfloat16",
    "data.batch=64",
    "data.frames=160",
    "workers=12",
    "log.tensorboard=false",
    "checkpoint.minutes=5",
)
"""What a large GPU takes beside the stage's own recipe."""

app = typer.Typer(no_args_is_help=True, add_completion=False)


def packed(utterance: Utterance) -> tuple[bytes, bytes]:
    """Audio as Ogg Opus, and every label compressed."""
    import soundfile

    audio, labels = io.BytesIO(), io.BytesIO()
    soundfile.write(
        audio,
        utterance.audio,
        SAMPLE_RATE,
        format="OGG",
        subtype="OPUS",
        compression_level=COMPRESSION,
    )
    np.savez_compressed(labels, **utterance.labels())
    return audio.getvalue(), labels.getvalue()


def unpacked(audio: bytes, labels: bytes) -> Utterance:
    """What `packed` made, the audio as Opus left it."""
    import soundfile

    wave, _ = soundfile.read(io.BytesIO(audio), dtype="int16")
    with opened_arrays(io.BytesIO(labels)) as arrays:
        return Utterance.of(wave, {name: arrays[name] for name in arrays.names})


def in_turn(folders: Sequence[Path]) -> Iterator[Path]:
    """The utterances of several folders, each in an order of its own that a part of stands for the
    whole, in turn."""
    rng = np.random.default_rng(0)
    lists = [
        sorted(p for p in folder.rglob("*.npz") if not p.name.startswith(".")) for folder in folders
    ]
    for paths in lists:
        rng.shuffle(paths)
    for number in range(max(map(len, lists), default=0)):
        yield from (paths[number] for paths in lists if number < len(paths))


@app.command()
def pack(
    folders: Annotated[list[Path], typer.Argument(help="what `rtvc data label` wrote")],
    out: Annotated[Path, typer.Option("-o", "--out", help="folder for the pieces")],
    hours: Annotated[float, typer.Option(min=0.0, help="of speech, of every folder alike")] = 12.0,
    megabytes: Annotated[
        float, typer.Option(min=0.01, max=MOST_MEGABYTES, help="of a piece, at most")
    ] = 60.0,
) -> None:
    """Pack labelled speech into pieces that travel."""
    seconds, pieces, count = 0.0, 0, 0
    entries: list[tuple[str, bytes]] = []

    def flush() -> None:
        nonlocal pieces, entries
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as piece:
            for name, content in entries:
                piece.writestr(name, content)
        write(out / f"piece-{pieces:02d}.zip", buffer.getvalue())
        pieces, entries = pieces + 1, []

    size = 0
    for path in in_turn(folders):
        if seconds >= hours * 3600:
            break
        try:
            utterance = load_utterance(path)
        except AudioError as error:
            typer.echo(f"left out: {error}", err=True)
            continue
        audio, labels = packed(utterance)
        needed = len(audio) + len(labels) + 400  # what a zip keeps of two members
        if entries and size + needed > megabytes * MEGABYTE:
            flush()
            size = 0
        name = f"{path.parent.name}__{path.stem}"
        entries += [(f"{name}.opus", audio), (f"{name}.npz", labels)]
        size, seconds, count = (
            size + needed,
            seconds + len(utterance.audio) / SAMPLE_RATE,
            count + 1,
        )
    if entries:
        flush()
    typer.echo(
        json.dumps({"pieces": pieces, "utterances": count, "hours": round(seconds / 3600, 3)})
    )


@app.command()
def unpack(
    folder: Annotated[Path, typer.Argument(help="with pieces")],
    out: Annotated[Path, typer.Option("-o", "--out", help="folder for one .npz an utterance")],
) -> None:
    """Unpack every piece that is there; what was unpacked before is left as it is."""
    out.mkdir(parents=True, exist_ok=True)
    written = 0
    for path in sorted(folder.glob("piece-*.zip")):
        try:
            with zipfile.ZipFile(path) as piece:
                for name in piece.namelist():
                    target = out / Path(name).name
                    if target.suffix == ".npz" and not target.exists():
                        save_utterance(
                            target,
                            unpacked(
                                piece.read(f"{name.removesuffix('.npz')}.opus"), piece.read(name)
                            ),
                        )
                        written += 1
        except (AudioError, zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
            raise TrainingError(
                f"{path} is no whole piece ({error}): pack or fetch it again"
            ) from error
    typer.echo(json.dumps({"unpacked": written, "there": len(list(out.glob("*.npz")))}))


@app.command()
def train(
    stage: Annotated[str, typer.Argument(help="joint, units, judge, …")],
    labelled: Annotated[list[Path], typer.Argument(help="folders of labelled speech")],
    out: Annotated[Path, typer.Option("-o", "--out", help="folder for what comes home")],
    minutes: Annotated[float, typer.Option(min=0.01)] = 24.0,
    init: Annotated[
        list[Path] | None, typer.Option(help="weights to start from; repeatable")
    ] = None,
    run: Annotated[Path, typer.Option(help="directory of checkpoints and logs")] = Path(
        "run/gpu-run"
    ),
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="key=value; repeatable")
    ] = None,
    megabytes: Annotated[
        float, typer.Option(min=0.01, help="of a file that comes home, at most")
    ] = 15.0,
) -> None:
    """Train a stage by the clock, and leave float16 weights, curves and a note in OUT."""
    from rich.console import Console

    from rtvc.train.config import load_config
    from rtvc.train.loop import Trainer
    from rtvc.train.registry import default_config, stage_type
    from rtvc.train.state import load_weights

    places = f"data.labelled={json.dumps([str(folder) for folder in labelled])}"
    started = f"init=[{', '.join('{path=' + json.dumps(str(path)) + '}' for path in init or ())}]"
    settings = GPU_SETTINGS if torch.cuda.is_available() else ()
    kind: Any = stage_type(stage)
    config = load_config(
        kind.config_type, default_config(stage), [places, started, *settings, *(overrides or ())]
    )
    torch.manual_seed(config.seed)
    outcome = Trainer(kind(config), config, run, console=Console(stderr=True)).fit(
        max_minutes=minutes
    )
    split(load_weights(run), out, megabytes)
    write(out / "metrics.jsonl", (run / "metrics.jsonl").read_bytes())
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    note = {
        "stage": stage,
        "step": outcome.step,
        "reason": outcome.reason,
        "seconds": round(outcome.seconds),
        "device": device,
    }
    write(
        out / "note.json",
        json.dumps(note | {"config": json.loads(config.model_dump_json())}, indent=1),
    )
    typer.echo(json.dumps(note))


def split(parts: dict[str, dict[str, torch.Tensor]], out: Path, megabytes: float) -> int:
    """Writes components of weights as float16, in files of at most so many megabytes; how many they
    are."""
    from safetensors.torch import save

    files, size = [dict[str, torch.Tensor]()], 0
    for part, weights in parts.items():
        for name, tensor in weights.items():
            half = tensor.half() if tensor.is_floating_point() else tensor
            if files[-1] and size + half.nbytes > megabytes * MEGABYTE:
                files.append({})
                size = 0
            files[-1][f"{part}/{name}"] = half.contiguous()
            size += half.nbytes
    for number, tensors in enumerate(files):
        write(out / f"weights-{number:02d}.safetensors", save(tensors))
    return len(files)


@app.command()
def join(
    folder: Annotated[Path, typer.Argument(help="what came home")],
    out: Annotated[Path, typer.Option("-o", "--out", help="safetensors file, as a run exports it")],
) -> None:
    """Put weights that came home in parts into one file that `[[init]]` and `rtvc train export`
    take."""
    from rtvc.train.state import save_weights

    parts: dict[str, dict[str, torch.Tensor]] = {}
    files = sorted(folder.glob("weights-*.safetensors"))
    if not files:
        raise CheckpointError(
            f"expected weights-00.safetensors and so on in {folder}, got none: name the folder that"
            " `train -o` wrote"
        )
    for path in files:
        with opened(path) as file:
            for name, tensor in file.read().items():
                part, _, rest = name.partition("/")
                parts.setdefault(part, {})[rest] = (
                    tensor.float() if tensor.is_floating_point() else tensor
                )
    try:
        note = read_json(folder / "note.json")
        kept = {
            "stage": str(note["stage"]),
            "step": str(note["step"]),
            "config": json.dumps(note["config"]),
            "device": str(note["device"]),
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} is not whole ({error}): fetch it again") from error
    save_weights(out, parts, kept)
    typer.echo(json.dumps({"parts": sorted(parts), "out": str(out)}))


if __name__ == "__main__":
    app()
