"""`rtvc live --voice V`."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from rtvc.cli.targets import EngineName, Lookahead, Recordings, Semitones, StepMs, Weights
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
        float | None,
        typer.Option(
            help="milliseconds a block; default: 2.5 where a sound server takes that, else 5",
            min=1,
            max=200,
        ),
    ] = None,
    chunk: StepMs = None,
    margin: Annotated[
        float | None,
        typer.Option(
            help="milliseconds that should wait at the player; default: what the jitter needs, 1 to"
            " 4 while all is calm",
            min=0,
            max=500,
        ),
    ] = None,
    engine: EngineName = "auto",
    backend: Annotated[str, typer.Option(help="auto, server, sounddevice or pyaudio")] = "auto",
    model: Weights = None,
    lookahead: Lookahead = None,
    pitch: Semitones = 0.0,
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
    record: Recordings = None,
    denoise: Annotated[
        bool, typer.Option("--denoise", help="take noise out of the input; adds 22 ms")
    ] = False,
    agc: Annotated[bool, typer.Option("--agc", help="bring the input slowly to one level")] = False,
    library: Annotated[
        Path | None,
        typer.Option("--voices", help="folder of more voices, in which new ones are kept"),
    ] = None,
    page: Annotated[
        bool, typer.Option("--page", help="open a page on this machine to control everything")
    ] = False,
    control_port: Annotated[
        int, typer.Option(help="port of the page and of `rtvc control`; 0 takes a free one")
    ] = 0,
    control_token_file: Annotated[
        Path | None, typer.Option(help="file with their token; default: a new one every time")
    ] = None,
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
    from rtvc.clients.control.desk import Desk
    from rtvc.clients.control.opening import controlled
    from rtvc.clients.control.speaking import SpeakingHere
    from rtvc.clients.control.voicebook import Voicebook, numbered
    from rtvc.clients.input.suppressor import suppressor
    from rtvc.clients.live.attend import attend
    from rtvc.clients.live.config import LiveConfig, block_ms, check_devices
    from rtvc.clients.live.devices import refresh
    from rtvc.clients.live.fitting import Fitting
    from rtvc.clients.live.live import Live
    from rtvc.clients.live.virtual_mic import TITLE, VirtualMic, can_be, check_server
    from rtvc.engine.admission.access import read_token
    from rtvc.engine.loading import streaming
    from rtvc.engine.open import begin, check_engine, chunk_of
    from rtvc.engine.voices.store import VoiceStore
    from rtvc.voices.voice import Voice

    # What can fail at once does so before the model is loaded, compiled and fitted.
    for name in voices:
        check_source(name)
    check_engine(engine)
    if virtual:
        check_server()
    if denoise:
        suppressor(input_rate or 48_000)
    token = None if control_token_file is None else read_token(control_token_file)
    config = LiveConfig(
        input=source,
        output=sink,
        input_rate=input_rate,
        output_rate=output_rate,
        margin_ms=margin,
        sound=backend,
        gate=gate,
        lookback_ms=lookback,
        pitch=pitch,
        monitor=monitor and not virtual,
        record=record,
        denoise=denoise,
        agc=agc,
    )
    devices = check_devices(config, voices)
    config = config.model_copy(update={"block_ms": block_ms(block, backend, devices)})
    typer.echo(PREPARING, err=True)
    converter, steps = streaming(model, lookahead)
    samples = chunk_of(chunk, steps) if chunk else None
    slots = [converter.voice(name) for name in voices]
    for voice in slots:
        advise(voice)
    running, faster = begin(steps, engine, samples)

    def make(recording: Path, name: str) -> Voice:
        return converter.voice(recording, name=name, fit=converter.fit_steps(fit))

    store = None if library is None else VoiceStore(library, converter.model.space)
    book = Voicebook(numbered(slots), slots, make, store)
    with ExitStack() as stack:
        microphone = stack.enter_context(VirtualMic(monitor=monitor)) if can_be() else None
        if virtual and microphone is not None:
            microphone.start()
            refresh()  # PortAudio looked for devices before this one was there
            typer.echo(f"other programs can pick the microphone {TITLE!r}", err=True)
        now = stack.enter_context(Live(running, slots[0], config))
        if faster is not None:  # what takes over when it is ready
            faster.start()
            stack.callback(faster.stop)
        if rounds := converter.fit_steps(fit):
            Fitting(converter, voices, slots, now.session, rounds).start()
        desk = Desk(now, SpeakingHere(now, book), microphone)
        stack.enter_context(controlled(desk, page=page, port=control_port, token=token))
        title = f"{running.name}, {1000 * running.chunk / running.sample_rate:g} ms steps"
        attend(now, desk.press, title, seconds, as_json)
