"""`rtvc stream IN.wav -o OUT.wav --url ws://…` and `rtvc stream --mic`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtvc.cli.targets import Force, Json, Recordings, Semitones, SoundOut, tell
from rtvc.cli.voice import say_advice
from rtvc.errors import ConfigError

if TYPE_CHECKING:
    from rtvc.clients.websocket.client import Client

__all__ = ["stream"]

RATE = 24_000
"""Hz of what is written, as `rtvc convert` writes it."""


def stream(
    source: Annotated[
        Path | None,
        typer.Argument(
            help="the recording to send, any format and rate; - reads standard input",
            show_default=False,
        ),
    ] = None,
    references: Annotated[
        list[Path] | None,
        typer.Option(
            "-r",
            "--reference",
            help="recording of the voice wanted, which is uploaded; several are blended",
        ),
    ] = None,
    voices: Annotated[
        list[str] | None,
        typer.Option(
            "--voice",
            help="voice of the server; several are blended, with --mic they fill the slots 1-9",
        ),
    ] = None,
    output: SoundOut = Path("out.wav"),
    url: Annotated[str, typer.Option(help="address of the server")] = "ws://127.0.0.1:8765",
    token: Annotated[
        str | None,
        typer.Option(
            envvar="RTVC_TOKEN", help="what the server wants to see; others here can read it"
        ),
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help="file that holds the token")] = None,
    ca: Annotated[
        Path | None, typer.Option(help="certificates to trust for wss, in place of the system's")
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="as fast as it goes, not at the pace of speech")
    ] = False,
    mic: Annotated[
        bool, typer.Option("--mic", help="send the microphone and play what comes back")
    ] = False,
    pitch: Semitones = 0.0,
    prosody: Annotated[
        float,
        typer.Option(help="0 keeps your own register and range, 1 takes the voice's", min=0, max=1),
    ] = 1.0,
    wire: Annotated[
        str, typer.Option("--format", help="samples on the wire: s16, f32 or opus")
    ] = "s16",
    max_lag: Annotated[
        float,
        typer.Option(
            help="milliseconds after which a live server drops audio (with --mic)", min=50
        ),
    ] = 400.0,
    microphone: Annotated[
        str | None, typer.Option("--input-device", help="index, name or part of it (with --mic)")
    ] = None,
    speaker: Annotated[
        str | None, typer.Option("--output-device", help="index, name or part of it (with --mic)")
    ] = None,
    margin: Annotated[
        float,
        typer.Option(
            help="milliseconds that should wait at the player (with --mic)", min=0, max=500
        ),
    ] = 30.0,
    seconds: Annotated[float | None, typer.Option(help="stop after this long (with --mic)")] = None,
    record: Recordings = None,
    denoise: Annotated[
        bool, typer.Option("--denoise", help="take noise out of the microphone (with --mic)")
    ] = False,
    agc: Annotated[
        bool, typer.Option("--agc", help="bring the microphone to one level (with --mic)")
    ] = False,
    session_token_file: Annotated[
        Path | None, typer.Option(help="file with a token by which others may control the session")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Send a recording or the microphone through a server.

    Example: rtvc stream me.wav -r anna.wav -o anna-says.wav --url ws://127.0.0.1:8765 --fast
    """
    if mic == (source is not None):
        raise ConfigError(
            "expected either a recording or --mic: `rtvc stream me.wav --voice anna`, or"
            " `rtvc stream --mic --voice anna`"
        )
    if not (references or voices):
        raise ConfigError(
            "no voice came: name one of the server's with --voice, or send a recording of somebody"
            " with -r"
        )
    if token is not None and token_file is not None:
        raise ConfigError(
            "expected either --token (or RTVC_TOKEN) or --token-file, got both: leave one out"
        )
    from rtvc.audio.opening import check_source, name_of
    from rtvc.clients.websocket.address import websocket_address
    from rtvc.engine.admission.access import read_token

    websocket_address(url)
    check_references(references or [])
    settings: dict[str, Any] = {
        "token": read_token(token_file).get_secret_value() if token_file else token,
        "tls": trust(ca),
        "control": read_token(session_token_file).get_secret_value()
        if session_token_file
        else None,
    }
    session = {"format": wire, "prosody": prosody}
    if mic:
        from rtvc.clients.live.config import LiveConfig, check_devices

        config = LiveConfig(
            input=microphone,
            output=speaker,
            block_ms=10.0,
            margin_ms=margin,
            lookback_ms=0.0,
            pitch=pitch,
            record=record,
            denoise=denoise,
            agc=agc,
        )
        check_devices(config)
        talk(
            url,
            references or [],
            voices or [],
            settings,
            config,
            session | {"max_lag_ms": max_lag},
            seconds,
            as_json,
        )
        return
    assert source is not None
    import asyncio

    from rtvc.audio.io import check_output, write
    from rtvc.audio.recording import open_recording
    from rtvc.clients.recording.recorder import SOURCE, Recorder
    from rtvc.clients.websocket.client import connect
    from rtvc.clients.websocket.file import convert_recording
    from rtvc.engine.protocol.fields import RATES
    from rtvc.files import check_target

    check_source(source)
    check_output(output, sources=[source, *(references or [])], force=force)
    if record is not None:
        check_target(record / f"{SOURCE}.flac", sources=[source], folders=True)
    recording = open_recording(source)
    rate = recording.rate if recording.rate in RATES else RATE
    wave = recording.samples(rate)

    async def work() -> tuple[Any, str]:
        async with connect(url, **settings) as client:
            voice = await choose(client, references or [], voices or [])
            started = await client.start(
                voice, sample_rate=rate, output_rate=RATE, pitch=pitch, **session
            )
            recorder = None if record is None else Recorder(record, rate, RATE)
            outcome = await convert_recording(client, wave, rate, fast=fast, recorder=recorder)
            return outcome, started.voice

    outcome, named = asyncio.run(work())
    write(output, outcome.samples, RATE)
    duration = len(outcome.samples) / RATE
    result = {
        "path": str(output),
        "voice": named,
        "duration_s": duration,
        "seconds": outcome.seconds,
        "sample_rate": RATE,
    }
    result |= {"resumed": outcome.resumed, **outcome.percentiles()}
    if as_json:
        tell(json.dumps(result), output)
        return
    tell(f"{name_of(source)} in the voice of {named}: {output}", output)
    lag = "  ".join(
        f"{name.split('_')[1]} {value:.0f} ms" for name, value in outcome.percentiles().items()
    )
    took = f"duration {duration:.2f} s  took {outcome.seconds:.2f} s"
    tell(took + (f"  lag {lag}" if lag else ""), output)


def check_references(references: list[Path]) -> None:
    """To be asked before connecting.

    Raises:
        AudioError: one is not there.
        ConfigError: one is a voice file, which servers do not take from strangers.
    """
    from rtvc.audio.opening import check_source

    for path in references:
        check_source(path)
        if path.suffix == ".voice":
            raise ConfigError(
                f"{path} is a voice file, -r takes recordings: name a voice of the server with "
                f"--voice, or send the recording that {path.name} was made of"
            )


async def choose(
    client: "Client", references: list[Path], voices: list[str]
) -> str | dict[str, float]:
    """The voice that was asked for: names of the server, and recordings that are uploaded, weighted
    by their speech."""
    shares = dict.fromkeys(voices, 10.0)
    for path in references:
        name, speech = await client.voice_of(path)
        told(client, path, name)
        shares[name] = speech
    return next(iter(shares)) if len(shares) == 1 else shares


def told(client: "Client", path: Path, name: str) -> None:
    """Passes on what the server says of a recording that was uploaded just now."""
    if (ready := client.made.get(name)) is not None:
        for line in ready.advice:
            say_advice(path, ready.grade, line)


def talk(
    url: str,
    references: list[Path],
    voices: list[str],
    settings: dict[str, Any],
    config: Any,
    session: dict[str, Any],
    seconds: float | None,
    as_json: bool,
) -> None:
    """The microphone, until a key, the time or the server ends it."""
    from contextlib import ExitStack

    from rtvc.clients.control.desk import Desk
    from rtvc.clients.control.opening import controlled
    from rtvc.clients.control.speaking import SpeakingThere
    from rtvc.clients.live.attend import attend
    from rtvc.clients.websocket.mic import RemoteLive
    from rtvc.clients.websocket.remote import Remote

    with ExitStack() as stack:
        remote = stack.enter_context(Remote(url, window=1.0, **settings))
        slots = list(voices)
        for path in references:
            slots.append(remote.voice_of(path)[0])
            told(remote.client, path, slots[-1])
        others = [name for name in remote.voices() if name not in slots]
        now = stack.enter_context(RemoteLive(remote, [*slots, *others], config, **session))
        desk = Desk(now, SpeakingThere(now, float(session["prosody"])))
        stack.enter_context(controlled(desk))
        attend(now, desk.press, f"{url}, {slots[0]}", seconds, as_json)


def trust(path: Path | None) -> Any:
    """The TLS settings that trust the certificates in a file; None for the system's.

    Raises:
        ConfigError: it holds none.
    """
    if path is None:
        return None
    import ssl

    try:
        return ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"expected certificates as PEM, got {path} ({error})") from error
