"""Options that commands have in common, and where their words go."""

from pathlib import Path
from typing import Annotated, Any

import typer

from rtvc.cli import say
from rtvc.files import is_standard_output

Force = Annotated[
    bool, typer.Option("--force", help="write even over a file that the command reads")
]
Lookahead = Annotated[
    float | None,
    typer.Option(
        help="milliseconds that a model with a latency dial hears ahead; default: its usual ones",
        min=0,
        max=1_000,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="print the result as JSON")]
Device = Annotated[str, typer.Option(help="cpu or cuda")]
Weights = Annotated[
    str | None, typer.Option(help="a file of weights; default: the shipped streaming model")
]
AnyModel = Annotated[
    str | None, typer.Option(help="stream (default), or a file of weights (.safetensors, .pth)")
]
EngineName = Annotated[str, typer.Option(help="auto, torch-eager, onnx, onnx-int8, openvino, …")]
StepMs = Annotated[
    float | None,
    typer.Option(help="milliseconds a step of the model; default: the shortest that is safe here"),
]
Semitones = Annotated[float, typer.Option(help="semitones added to the pitch", min=-24, max=24)]
ProsodyFrom = Annotated[
    Path | None,
    typer.Option(help="take pitch register and range, energy and rhythm from this one instead"),
]
SoundOut = Annotated[
    Path,
    typer.Option(
        "-o",
        "--output",
        help="where to write; the suffix chooses the format, - is WAV to standard output",
    ),
]
Recordings = Annotated[
    Path | None, typer.Option(help="folder for recordings of what is said and heard, FLAC")
]


def tell(text: str, output: Path | None) -> None:
    """Says a line on standard output; on standard error where that carries the command's output."""
    say(text, err=output is not None and is_standard_output(output))


def check_weights(path: Path, **options: Any) -> None:
    """To be asked before long work: whether weights can be written there, and read again.

    Raises:
        ConfigError: a suffix that `rtvc.load` does not know.
        OutputError: as `rtvc.files.check_target`, whose options are taken.
    """
    from rtvc.errors import ConfigError
    from rtvc.files import check_target, is_stream

    if path.suffix != ".safetensors" and not is_stream(path):
        raise ConfigError(f"expected a name that ends in .safetensors, got {path}")
    check_target(path, **options)
