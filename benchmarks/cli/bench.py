"""`rtvc bench components|stream|loopback|cold|quality|stalls|soak|control|noise`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from rtvc.benchmarks.cli.soak import soak
from rtvc.cli.targets import Lookahead, Weights, tell

__all__ = [
    "cold",
    "components",
    "control",
    "loopback",
    "noise",
    "quality",
    "soak",
    "stalls",
    "stream",
]

Model = Weights
Output = Annotated[Path | None, typer.Option("--json", help="write the result here")]


def components(
    model: Model = None,
    lookahead: Lookahead = None,
    backends: Annotated[list[str] | None, typer.Option("--backend", help="only these")] = None,
    chunks: Annotated[
        list[float] | None,
        typer.Option("--chunk", help="milliseconds, several; default: 12.5, 25, 50, 100"),
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option(help="thread counts, several; default: 1")
    ] = None,
    rounds: Annotated[int, typer.Option(help="timed calls of each", min=3)] = 100,
    output: Annotated[
        Path | None,
        typer.Option("--json", help="results file; default: benchmarks/results/<machine>.json"),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="draw the steps into this picture (.png, .svg)")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="show what changed against this results file")
    ] = None,
) -> None:
    """Time every component and the whole step, by backend, chunk size and threads.

    Example: rtvc bench components --chunk 25 --picture steps.svg
    """
    from rtvc.benchmarks import report
    from rtvc.benchmarks.components import BACKENDS, cases, measure
    from rtvc.engine.loading import streaming
    from rtvc.errors import EngineError
    from rtvc.evaluate.provenance import provenance
    from rtvc.files import check_target, is_stream

    report.check(output)
    before = report.read(compare) if compare else {}
    if picture:
        report.picture_format(check_target(picture, folders=True))
    _, converter = streaming(model, lookahead)
    timed = cases(converter, tuple(backends or BACKENDS), None if chunks is None else tuple(chunks))
    rows = [
        row for case in timed for count in threads or [1] if (row := measure(case, count, rounds))
    ]
    if not rows:
        raise EngineError("nothing could be timed: name backends and chunks that are there")
    path = report.save(rows, output)
    whole = provenance() | {"results": rows} if is_stream(path) else report.read(path)
    tell(report.table(whole), output)
    if compare:
        tell(report.compare(before, whole), output)
    if picture:
        report.picture(whole, picture)
    typer.echo(f"results: {path}", err=True)


def stream(
    streams: Annotated[
        int | None,
        typer.Option(help="sessions at once; default: more and more until it breaks", min=1),
    ] = None,
    engine: Annotated[str, typer.Option(help="auto, torch-eager, onnx, onnx-int8, …")] = "auto",
    chunk: Annotated[float, typer.Option(help="milliseconds a tick")] = 25.0,
    ticks: Annotated[int, typer.Option(help="timed ticks of each number", min=5)] = 100,
    model: Model = None,
    lookahead: Lookahead = None,
    output: Output = None,
) -> None:
    """How many concurrent sessions this machine holds in real time.

    Example: rtvc bench stream --streams 4
    """
    from rtvc.benchmarks import report
    from rtvc.benchmarks.stream import stream as run
    from rtvc.engine.loading import streaming
    from rtvc.engine.open import check_engine, chunk_of, open_engine
    from rtvc.voices.voice import Voice

    report.check(output)
    check_engine(engine)
    loaded, converter = streaming(model, lookahead)
    backend, _ = open_engine(converter, engine, chunk_of(chunk, converter))
    import torch

    torch.set_num_threads(1)
    result = run(backend, Voice(torch.zeros(128), torch.zeros(128)), streams=streams, count=ticks)
    for row in result["rows"]:
        fits = "" if row["fits"] else "  over the tick"
        times = f"p50 {row['p50_ms']:.2f}  p95 {row['p95_ms']:.2f}  p99 {row['p99_ms']:.2f} ms"
        tell(f"{row['streams']:3d} sessions  {times} of {result['tick_ms']:g}{fits}", output)
    tell(
        f"{result['sustained']} sessions of {loaded.model.name} fit with {result['backend']}",
        output,
    )
    path = report.save([result], output, kind="stream")
    typer.echo(f"results: {path}", err=True)


def loopback(
    voice: Annotated[
        str, typer.Option(help="recording or voice file to speak with")
    ] = "examples/reference.flac",
    engine: Annotated[str, typer.Option(help="auto, torch-eager, onnx, onnx-int8, …")] = "auto",
    chunk: Annotated[float, typer.Option(help="milliseconds a step")] = 12.5,
    block: Annotated[float, typer.Option(help="milliseconds a block of the sound card")] = 2.5,
    margin: Annotated[
        float | None,
        typer.Option(help="milliseconds that should wait at the player; default: adapts"),
    ] = None,
    backend: Annotated[str, typer.Option(help="way to the devices, as of `rtvc live`")] = "auto",
    source: Annotated[str | None, typer.Option("--input", help="as of `rtvc live`")] = None,
    sink: Annotated[str | None, typer.Option("--output", help="as of `rtvc live`")] = None,
    seconds: Annotated[float, typer.Option(help="how long")] = 20.0,
    server: Annotated[str, typer.Option(help="pulseaudio or pipewire")] = "pulseaudio",
    model: Model = None,
    lookahead: Lookahead = None,
    output: Output = None,
) -> None:
    """Capture-to-playback latency of `rtvc live` with a private sound server.

    Example: rtvc bench loopback --seconds 20
    """
    from rtvc.benchmarks import report
    from rtvc.benchmarks.live.loopback import loopback as run

    report.check(output)
    chosen = {
        "backend": backend,
        "model": model,
        "lookahead": lookahead,
        "input": source,
        "output": sink,
    }
    extra = {name: str(value) for name, value in chosen.items() if value is not None}
    result = run(
        voice,
        seconds=seconds,
        engine=engine,
        chunk_ms=chunk,
        block_ms=block,
        margin_ms=margin,
        server=server,
        **extra,
    )
    tell(json.dumps(result, indent=2), output)
    path = report.save([result], output, kind="loopback")
    typer.echo(f"results: {path}", err=True)


def cold(
    starts: Annotated[
        list[str] | None,
        typer.Option("--start", help="import, help, convert, stream, serve, live; default: all"),
    ] = None,
    rounds: Annotated[int, typer.Option(help="starts of each", min=1)] = 1,
    against: Annotated[
        Path | None, typer.Option(help="folder of another checkout, started in turn")
    ] = None,
    output: Output = None,
) -> None:
    """Seconds from a command to its first converted sound, on an empty cache.

    Example: rtvc bench cold --start serve --start live
    """
    from rtvc.benchmarks import report
    from rtvc.benchmarks.live.cold import STARTS
    from rtvc.benchmarks.live.cold import cold as run
    from rtvc.errors import ConfigError

    report.check(output)
    names = starts or list(STARTS)
    if unknown := sorted(set(names) - set(STARTS)):
        raise ConfigError(f"expected starts among {', '.join(STARTS)}, got {unknown[0]!r}")
    if against is not None and not (against / "rtvc" / "cli").is_dir():
        raise ConfigError(f"{against} is no checkout of rtvc: name its folder")
    rows = list[dict[str, Any]]()
    for name in names:
        rows += run([name], rounds, against and against.resolve())
        row = rows[-1]
        line = f"{row['start']:16s} {row['seconds']:.2f} s, processor {row['cpu']:.2f} s"
        if against:
            line += f"; before {row['before']:.2f} s, processor {row['before_cpu']:.2f} s"
        tell(line, output)
    path = report.save(rows, output, kind="cold")
    typer.echo(f"results: {path}", err=True)


def quality(
    pairs: Annotated[Path, typer.Option(help="list of conversions, as for `rtvc evaluate`")] = Path(
        "../shared/corpus/eval_pairs.tsv"
    ),
    limit: Annotated[int | None, typer.Option(help="only the first so many pairs", min=1)] = None,
    chunk: Annotated[float, typer.Option(help="milliseconds a step")] = 25.0,
    model: Model = None,
    lookahead: Lookahead = None,
    output: Output = None,
) -> None:
    """`rtvc evaluate` of the streamed model, and its difference from offline.

    Example: rtvc bench quality --limit 4 --json quality.json
    """
    from rtvc.benchmarks.quality import quality as run
    from rtvc.errors import EngineError
    from rtvc.files import check_target, write_json

    if output:
        check_target(output, sources=[pairs], folders=True)
    result = run(pairs, limit=limit, chunk=round(24 * chunk), model=model, lookahead=lookahead)
    tell(json.dumps({name: result[name] for name in ("summary", "streaming")}, indent=2), output)
    if output:
        write_json(output, result)
    if not result["streaming"]["equal"]:
        raise EngineError(
            f"the stream differs from offline by {result['streaming']['largest_difference']:.3g}:"
            " this must not be"
        )


def stalls(
    minutes: Annotated[float, typer.Option(help="of simulated conversation")] = 30.0,
    engine: Annotated[
        str | None, typer.Option(help="a real backend; default: a delay line in place of the model")
    ] = None,
    seed: Annotated[int, typer.Option(help="of the stalls")] = 0,
    model: Model = None,
    lookahead: Lookahead = None,
    output: Output = None,
) -> None:
    """A simulated conversation with random stalls: nothing lost but what was declared, lag back
    every time, memory flat.

    Example: rtvc bench stalls --minutes 30
    """
    from rtvc.benchmarks import report
    from rtvc.benchmarks.live.stalls import stalls as run
    from rtvc.errors import EngineError

    report.check(output)
    backend = None
    if engine is not None:
        from rtvc.engine.loading import streaming
        from rtvc.engine.open import open_engine

        backend, _ = open_engine(streaming(model, lookahead)[1], engine)
    result = run(minutes, backend=backend, seed=seed)
    tell(json.dumps(result, indent=2), output)
    path = report.save([result], output, kind="stalls")
    print(f"results: {path}", file=sys.stderr)
    if not result["passed"]:
        raise EngineError("the conversation broke a promise: see above")


def control(
    asks: Annotated[int, typer.Option(help="how many", min=20)] = 1000, output: Output = None
) -> None:
    """How soon a conversion that runs on this machine answers a change: start `rtvc live` first.

    Example: rtvc bench control
    """
    from rtvc.benchmarks import report
    from rtvc.benchmarks.live.control import round_trips
    from rtvc.clients.control.runtime import address_of

    report.check(output)
    times = round_trips(address_of(), asks)
    tell(json.dumps(times, indent=2), output)
    path = report.save([times], output, kind="control")
    typer.echo(f"results: {path}", err=True)


def noise(
    pairs: Annotated[Path, typer.Option(help="list of conversions, as for `rtvc evaluate`")] = Path(
        "../shared/corpus/eval_pairs.tsv"
    ),
    utterances: Annotated[int, typer.Option(help="at each level", min=1)] = 10,
    levels: Annotated[
        list[float] | None,
        typer.Option("--snr", help="decibels of speech over noise, several; default: 0 5 10 20"),
    ] = None,
    names: Annotated[
        list[str] | None, typer.Option("--suppressor", help="only these: none, rnnoise, hush")
    ] = None,
    model: Model = None,
    lookahead: Lookahead = None,
    output: Output = None,
) -> None:
    """What a noise suppressor before the converter does for words and naturalness.

    Example: rtvc bench noise --utterances 4 --snr 5 --snr 20
    """
    from rtvc.benchmarks import report
    from rtvc.benchmarks.live import noise as bench
    from rtvc.engine.loading import streaming
    from rtvc.errors import ConfigError
    from rtvc.evaluate.judges import distillmos
    from rtvc.evaluate.judges.recogniser import Recogniser
    from rtvc.evaluate.pairs import read_pairs

    report.check(output)
    if unknown := set(names or []) - set(bench.CANDIDATES):
        raise ConfigError(
            f"expected some of {', '.join(bench.CANDIDATES)}, got {', '.join(sorted(unknown))}"
        )
    chosen, rows = read_pairs(pairs, utterances), list[bench.Row]()
    for row in bench.compare(
        streaming(model, lookahead)[0],
        chosen,
        Recogniser().transcribe,
        distillmos.judge(),
        levels=levels or bench.LEVELS_DB,
        names=names or tuple(bench.CANDIDATES),
    ):
        rows.append(row)
        typer.echo(bench.table([row]).splitlines()[1], err=True)
    tell(bench.table(rows), output)
    path = report.save([bench.record(rows, pairs)], output, kind="noise")
    typer.echo(f"results: {path}", err=True)
