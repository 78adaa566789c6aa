"""`rtvc copies`."""

from pathlib import Path
from typing import Annotated

import typer

from rtvc.cli.label import Json, print_summary, progress_of

CHUNK = 1200
"""Samples a step when copies are made: 50 ms, where a step costs least for its length."""


def copies(
    folder: Annotated[Path, typer.Argument(help="what `rtvc data label --codebook` wrote")],
    codebook: Annotated[Path, typer.Option(help="what `rtvc data codebook` made")],
    number: Annotated[
        int, typer.Option(min=1, help="which copy of every utterance, counted from 1")
    ] = 1,
    backend: Annotated[
        str, typer.Option(help="runs the steps: onnx-int8, openvino-int8, auto, …")
    ] = "onnx-int8",
    seed: Annotated[int, typer.Option(help="of the choice of voices")] = 0,
    as_json: Json = False,
) -> None:
    """Say every labelled utterance again in another speaker's voice, for an encoder to hear; a
    stopped run goes on."""
    import torch

    from rtvc.audio.mel import SAMPLE_RATE
    from rtvc.engine.loading import streaming
    from rtvc.engine.open import open_engine
    from rtvc.teacher.whisper import Listener
    from rtvc.train.material.copies import make_copies, streaming_convert
    from rtvc.train.material.units import LAYERS, Codebook

    torch.set_num_threads(1)
    model, converter = streaming()
    stepper, _ = open_engine(converter, backend, CHUNK)
    convert = streaming_convert(converter, CHUNK, stepper)
    with progress_of("converting") as tell:
        done = make_copies(
            folder,
            convert,
            lambda wave: model.voice((wave, SAMPLE_RATE)),
            Codebook.load(codebook),
            Listener(LAYERS),
            number=number,
            seed=seed,
            progress=tell,
        )
    counts = {"made": done.written, "found": done.existing, "differ": done.differ}
    summary = {"folder": str(folder), **counts}
    print_summary(summary, as_json)
