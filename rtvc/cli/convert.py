"""`rtvc convert SOURCE -r REFERENCE… -o OUT`; `-` is standard input and output."""

import json
from pathlib import Path
from typing import Annotated

import typer

from rtvc.cli.targets import (
    AnyModel,
    Device,
    Force,
    Json,
    Lookahead,
    ProsodyFrom,
    Semitones,
    SoundOut,
    tell,
)
from rtvc.cli.voice import Fit, advise

__all__ = ["convert"]


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            help="the recording to convert, any format and rate; - reads standard input",
            show_default=False,
        ),
    ],
    more: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[REFERENCE]...", help="further references", show_default=False),
    ] = None,
    references: Annotated[
        list[Path] | None,
        typer.Option(
            "-r",
            "--reference",
            help="recording of the voice wanted, or a voice file; several are blended",
        ),
    ] = None,
    output: SoundOut = Path("out.wav"),
    model: AnyModel = None,
    lookahead: Lookahead = None,
    timbre: Annotated[
        Path | None,
        typer.Option(help="take the sound of the voice from this recording or voice file instead"),
    ] = None,
    prosody: ProsodyFrom = None,
    pitch: Semitones = 0.0,
    keep_register: Annotated[
        bool,
        typer.Option(
            "--keep-register",
            help="keep the speaker's own pitch register and range: what is sung stays in tune",
        ),
    ] = False,
    fit: Fit = None,
    device: Device = "cpu",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Convert a recording to the voice of one or more references.

    Example: rtvc convert me.wav -r anna.wav -o anna-says.wav
    """
    from time import perf_counter

    from rtvc.audio.io import check_output
    from rtvc.audio.opening import check_source, name_of
    from rtvc.audio.recording import open_recording, write_pieces
    from rtvc.cli.progress import busy, watched
    from rtvc.models_by_name import load

    given = [*(references or []), *(more or [])]
    single = [path for path in (timbre, prosody) if path is not None]
    for path in (source, *given, *single):
        check_source(path)
    check_output(output, sources=[source, *given, *single], force=force)
    recording = open_recording(source)
    with busy("making the voice"):
        converter = load(model, device, lookahead)
        steps = converter.fit_steps(fit)
        voice = converter.voice(*given, timbre=timbre, prosody=prosody, fit=steps)
    advise(voice)
    started = perf_counter()
    blend = 0.0 if keep_register else 1.0
    pieces = converter.convert_recording(recording, voice, pitch=pitch, prosody=blend)
    total = recording.seconds * converter.sample_rate
    write_pieces(output, watched(pieces, "converting", total), converter.sample_rate)
    spent, duration, latency = perf_counter() - started, recording.seconds, converter.latency
    if as_json:
        result = {
            "path": str(output),
            "voice": voice.name,
            "model": converter.model.name,
            "device": str(converter.device),
        }
        figures = {
            "duration_s": duration,
            "rtf": spent / duration,
            "latency_ms": None if latency is None else latency * 1000,
        }
        tell(json.dumps(result | {"sample_rate": converter.sample_rate} | figures), output)
        return
    tell(f"{name_of(source)} in the voice of {voice.name}: {output}", output)
    tell(
        f"duration {duration:.2f} s  real-time factor {spent / duration:.3f}  "
        + (
            f"latency {latency * 1000:.1f} ms as a stream"
            if latency is not None
            else f"{converter.model.name} needs whole recordings"
        ),
        output,
    )
