"""`rtvc live --voice V`."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from rtvc.cli.voice import Fit, advise

__all__ = ["live"]

PREPARING = "preparing the model"


def live(
    voices: Annotated[
        list[str],
        typer.Option(
            "--voice",
            help="recording or voice file; several fill the slots 1-9",
            show_default=False,
        ),
    ],
    source: Annotated[
        str | None, typer.Option("--input", help="input device: index, name or part of it")
    ] = None,
    sink: Annotated[
        str | None, typer.Option("--output", help="output device: index, name or part of it")
    ] = None,
    input_rate: Annotated[int | None, typer.Option(help="Hz; default: the device's own")] = None,
    output_rate: Annotated[int | None, typer.Option(help="Hz; default: the device's own")] = None,
    block: Annotated[
        float, typer.Option(help="milliseconds a block of the sound card", min=1, max=200)
    ] = 10.0,
    chunk: Annotated[
        float | None,
        typer.Option(
            help="milliseconds a step of the model; default: the shortest that is safe here"
        ),
    ] = None,
    margin: Annotated[
        float,
        typer.Option(
            help="milliseconds that should wait at the player: more survives more jitter",
            min=0,
            max=500,
        ),
    ] = 10.0,
    engine: Annotated[
        str, typer.Option(help="auto, torch-eager, onnx, onnx-int8, openvino, …")
    ] = "auto",
    backend: Annotated[str, typer.Option(help="sounddevice or pyaudio")] = "sounddevice",
    model: Annotated[
        str | None, typer.Option(help="a file of weights; default: the shipped streaming model")
    ] = None,
    pitch: Annotated[
        float, typer.Option(help="semitones added to the pitch", min=-24, max=24)
    ] = 0.0,
    fit: Fit = None,
    gate: Annotated[bool, typer.Option(help="be silent while nobody speaks")] = True,
    lookback: Annotated[
        float,
        typer.Option(
            help="milliseconds of extra delay by which the gate looks back", min=0, max=500
        ),
    ] = 0.0,
    monitor: Annotated[
        bool, typer.Option("--monitor", help="let the default speaker sound too")
    ] = False,
    record: Annotated[Path | None, typer.Option(help="folder for input.wav and output.wav")] = None,
    virtual: Annotated[
        bool,
        typer.Option("--virtual-mic", help="Linux: be a microphone that other programs can pick"),
    ] = False,
    seconds: Annotated[float | None, typer.Option(help="stop after this long")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="print the state as JSON, once a second")
    ] = False,
) -> None:
    """Speak into the microphone with another voice.

    Example: rtvc live --voice anna.wav --virtual-mic
    """
    from rtvc.audio.opening import check_source
    from rtvc.clients.live.attend import attend
    from rtvc.clients.live.config import LiveConfig, check_devices
    from rtvc.clients.live.devices import refresh
    from rtvc.clients.live.fitting import Fitting
    from rtvc.clients.live.keys import act
    from rtvc.clients.live.live import Live
    from rtvc.clients.live.virtual_mic import check_server, virtual_mic
    from rtvc.engine.loading import streaming
    from rtvc.engine.open import begin, check_engine, chunk_of

    # What can fail at once does so before the model is loaded, compiled and fitted.
    for name in voices:
        check_source(name)
    check_engine(engine)
    if virtual:
        check_server()
    config = LiveConfig(
        input=source,
        output=sink,
        input_rate=input_rate,
        output_rate=output_rate,
        block_ms=block,
        margin_ms=margin,
        sound=backend,
        gate=gate,
        lookback_ms=lookback,
        pitch=pitch,
        monitor=monitor and not virtual,
        record=record,
    )
    check_devices(config, voices)
    typer.echo(PREPARING, err=True)
    converter, steps = streaming(model)
    samples = chunk_of(chunk, steps) if chunk else None
    slots = [converter.voice(name) for name in voices]
    for voice in slots:
        advise(voice)
    running, faster = begin(steps, engine, samples)
    with ExitStack() as stack:
        if virtual:
            name = stack.enter_context(virtual_mic(monitor=monitor))
            refresh()  # PortAudio looked for devices before this one was there
            typer.echo(f"other programs can pick the microphone {name!r}", err=True)
        now = stack.enter_context(Live(running, slots[0], config))
        if faster is not None:  # what takes over when it is ready
            faster.start()
            stack.callback(faster.stop)
        if rounds := converter.fit_steps(fit):
            Fitting(converter, voices, slots, now.session, rounds).start()
        title = f"{running.name}, {1000 * running.chunk / running.sample_rate:g} ms steps"
        attend(now, lambda key: act(key, now, slots), title, seconds, as_json)
