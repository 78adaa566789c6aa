"""`rtvc build --backend B -o DIR`."""

import json
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["build"]


def build(
    output: Annotated[Path | None, typer.Option("-o", "--output", help="directory of the engine; default: the cache")] = None,
    backend: Annotated[str, typer.Option(help="auto, onnx, onnx-int8, openvino, openvino-bf16, openvino-int8, torch-compile")] = "auto",
    model: Annotated[str | None, typer.Option(help="a file of weights; default: the shipped streaming model")] = None,
    chunk: Annotated[float, typer.Option(help="milliseconds a step, a multiple of 12.5")] = 25.0,
    again: Annotated[bool, typer.Option(help="auto: measure even if this machine was measured before")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Compile the streaming model's step for this machine.

    Example: rtvc build --backend onnx-int8 -o engine/
    """
    from rtvc.engine.build import build as compile_engine
    from rtvc.engine.choose import choose
    from rtvc.engine.open import chunk_of, streaming

    _, converter = streaming(model)
    samples = chunk_of(chunk, converter)
    if backend == "auto":
        chosen, found = choose(converter, samples, again=again)
        if as_json:
            typer.echo(json.dumps(found))
            return
        for name, figures in found["measured"].items():
            typer.echo(
                f"{name:16s} p50 {figures['p50_ms']:7.2f} ms  p95 {figures['p95_ms']:7.2f} ms  fidelity {figures['fidelity_db']:5.1f} dB"
                + ("  <- chosen" if name == chosen.name else "")
            )
        for name, reason in found["refused"].items():
            typer.echo(f"{name:16s} {reason}")
        if output is None or chosen.name == "torch-eager":
            return
        backend = chosen.name
    target = Path(f"rtvc-engine-{backend}") if output is None else output
    manifest = compile_engine(converter, backend, target, samples)
    if as_json:
        typer.echo(json.dumps({"path": str(target)} | manifest.model_dump()))
        return
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    typer.echo(f"{target}: {backend}, {chunk:g} ms steps, model {manifest.model[:12]}, {size / 1e6:.1f} MB")
