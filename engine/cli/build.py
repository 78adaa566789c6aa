"""`rtvc build --backend B -o DIR`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from rtvc.cli.targets import Json, Lookahead, Weights

if TYPE_CHECKING:
    from rtvc.converter import VoiceConverter
    from rtvc.engine.graph.target import Target
    from rtvc.engine.parity import Parity

__all__ = ["build"]

BACKENDS = (
    "auto, onnx, onnx-int8, openvino, openvino-bf16, openvino-int8, compile, cudagraph, tensorrt"
)


def target_of(
    backend: str,
    precision: str | None,
    batch: str | None,
    flavour: str | None,
    capabilities: str | None,
    kernels: bool | None,
) -> "Target | None":
    """What the options for GPUs say; None when none was given.

    Raises:
        ConfigError: for a value that is none.
    """
    from rtvc.engine.graph.target import Target, parse_batch
    from rtvc.engine.registry import GPU_BACKENDS
    from rtvc.errors import ConfigError

    given: dict[str, Any] = {"precision": precision, "flavour": flavour, "kernels": kernels}
    if batch is not None:
        given["batch"] = parse_batch(batch)
    if capabilities is not None:
        given["capabilities"] = tuple(part.strip() for part in capabilities.split(","))
    given = {name: value for name, value in given.items() if value is not None}
    for name, known in (("precision", ("fp32", "fp16")), ("flavour", ("auto", "tensorrt", "rtx"))):
        if name in given and given[name] not in known:
            raise ConfigError(
                f"expected --{name} to be one of {', '.join(known)}, got {given[name]}"
            )
    if not given:
        return None
    if backend == "auto":
        raise ConfigError(
            "auto chooses among the backends of the CPU: name --backend tensorrt or cudagraph with"
            " options for GPUs"
        )
    return Target(**(GPU_BACKENDS.get(backend, Target()).model_dump() | given))


def build(
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="directory of the engine; default: the cache"),
    ] = None,
    backend: Annotated[str, typer.Option(help=BACKENDS)] = "auto",
    model: Weights = None,
    lookahead: Lookahead = None,
    chunk: Annotated[float, typer.Option(help="milliseconds a step, a multiple of 12.5")] = 25.0,
    again: Annotated[
        bool, typer.Option(help="auto: measure even if this machine was measured before")
    ] = False,
    precision: Annotated[
        str | None, typer.Option(help="tensorrt: fp32 or fp16; default fp32")
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(help="tensorrt, cudagraph: sessions in a step, MIN:OPT:MAX; default 1:16:256"),
    ] = None,
    flavour: Annotated[
        str | None,
        typer.Option(help="tensorrt: auto, tensorrt (data-center GPUs) or rtx (GeForce, RTX)"),
    ] = None,
    capabilities: Annotated[
        str | None,
        typer.Option(help="rtx: compute capabilities, as 8.6,8.9,12.0; default: the GPU here"),
    ] = None,
    kernels: Annotated[
        bool | None,
        typer.Option(help="tensorrt: leave our own kernels to torch; cudagraph: use them or not"),
    ] = None,
    refit: Annotated[
        Path | None,
        typer.Option(help="tensorrt: an engine of the same kind whose weights are replaced"),
    ] = None,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan", help="tensorrt: only list what converts and what falls back; needs no GPU"
        ),
    ] = False,
    parity: Annotated[
        Path | None,
        typer.Option(
            help="a recording that engine and model both say: how far apart they are",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compile the streaming model's step for this machine, or for GPUs.

    Example: rtvc build --backend tensorrt --precision fp16 --batch 1:16:256 -o engine/
    """
    from rtvc.audio.opening import check_source
    from rtvc.engine.auto import choose
    from rtvc.engine.build import build as compile_engine
    from rtvc.engine.loading import streaming
    from rtvc.engine.open import check_engine, chunk_of
    from rtvc.files import check_folder

    target = target_of(backend, precision, batch, flavour, capabilities, kernels)
    check_engine(backend)
    if output is not None and not plan:
        check_folder(output)
    if parity is not None:
        check_source(parity)
    loaded, converter = streaming(model, lookahead)
    samples = chunk_of(chunk, converter)
    if plan:
        show_plan(backend, converter, samples, target, as_json)
        return
    if backend == "auto":
        chosen, trials = choose(converter, samples, again=again)
        if as_json:
            typer.echo(json.dumps(trials))
            return
        for name, figures in trials["measured"].items():
            typer.echo(
                f"{name:16s} p50 {figures['p50_ms']:7.2f} ms  p95 {figures['p95_ms']:7.2f} ms "
                f" fidelity {figures['fidelity_db']:5.1f} dB"
                + ("  <- chosen" if name == chosen.name else "")
            )
        for name, reason in trials["refused"].items():
            typer.echo(f"{name:16s} {reason}")
        if output is None or chosen.name == "torch-eager":
            return
        backend = chosen.name
    folder = Path(f"rtvc-engine-{backend}") if output is None else output
    if target is not None and target.kernels and backend == "tensorrt" and not as_json:
        show_plan(backend, converter, samples, target, False, falls_only=True)
    manifest = compile_engine(converter, backend, folder, samples, target=target, refit=refit)
    figures = None if parity is None else parity_of(folder, loaded, parity)
    if as_json:
        told = {} if figures is None else {"parity": figures}
        typer.echo(json.dumps({"path": str(folder)} | manifest.model_dump() | told))
        return
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    built = manifest.target
    rows = (
        ""
        if built is None
        else f", {built.flavour} {built.precision} for {built.batch[0]} to {built.batch[2]}"
        " sessions"
    )
    gpus = "" if built is None else f" on compute capability {', '.join(built.capabilities)}"
    typer.echo(
        f"{folder}: {backend}, {chunk:g} ms steps{rows}{gpus}, model {manifest.model[:12]},"
        f" {size / 1e6:.1f} MB"
    )
    if figures is not None:
        typer.echo(
            f"parity over {figures['steps']} steps: {figures['step_db']:.1f} dB a step, at most"
            f" {figures['step_largest']:.1e};\nin a stream {figures['stream_db']:.1f} dB of the"
            f" samples, {figures['fidelity_db']:.1f} dB of their spectra"
        )


def parity_of(folder: Path, loaded: "VoiceConverter", recording: Path) -> "Parity":
    """How far the engine in a folder is from the model, saying a recording in its own voice.

    Raises:
        AudioError: the recording cannot be used.
    """
    from rtvc.audio.recording import read
    from rtvc.engine.backends.eager import TorchBackend
    from rtvc.engine.cached import load
    from rtvc.engine.parity import parity

    assert loaded.model.streaming is not None
    converter = loaded.model.streaming.converter
    built = load(folder, converter)
    voice = loaded.voice(recording)
    return parity(built, TorchBackend(converter, built.chunk), voice, read(recording))


def show_plan(
    backend: str,
    converter: object,
    samples: int,
    target: "Target | None",
    as_json: bool,
    *,
    falls_only: bool = False,
) -> None:
    """Prints what TensorRT would take and what it would not.

    Raises:
        ConfigError: for another backend, which plans nothing.
    """
    from rtvc.engine.backends.tensorrt import plan_of
    from rtvc.engine.graph.target import Target
    from rtvc.errors import ConfigError
    from rtvc.models.streaming.interface import Converter

    if backend != "tensorrt":
        raise ConfigError(
            f"--plan came with --backend {backend}, which converts no operators: use --backend"
            " tensorrt"
        )
    plan = plan_of(cast(Converter, converter), samples, target or Target())
    if as_json:
        typer.echo(json.dumps(plan.as_dict))
        return
    for line in plan.lines:
        if not falls_only or "falls back" in line:
            typer.echo(line)
