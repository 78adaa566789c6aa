"""What the GPU suite measures of models: the streaming step, its parts, and the paper's components,
each as several ways run it."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from rtvc.benchmarks.gpu.timing import Bench, Unavailable, ladder
from rtvc.layers.dispatch import set_implementation

CHUNK = 600
"""25 ms, the tick."""
FRAMES = 192
"""Mel frames of the paper's components: 2.4 s."""


def prepared(way: str, module: torch.nn.Module, bench: Bench) -> Callable[..., Any]:
    """A module as one of the ways runs it: eager, fused (our kernels), compile, fused-compile,
    tensorrt.

    Raises:
        Unavailable: without torch-tensorrt.
    """
    module = set_implementation(
        copy.deepcopy(module), "auto" if way.startswith("fused") else "reference"
    )
    if way.endswith("compile"):
        torch._dynamo.reset()
        return torch.compile(module, disable=bench.dry)  # tracing is not worth a dry run's time
    if way == "tensorrt":
        try:
            import torch_tensorrt
        except Exception as problem:
            raise Unavailable(f"torch_tensorrt cannot be imported: {problem}") from problem
        return torch.compile(
            module,
            backend="torch_tensorrt",
            dynamic=False,
            options={"min_block_size": 1, "device": torch_tensorrt.Device("cuda:0")},
        )
    return module


def step(converter: Any, way: str, bench: Bench) -> list[dict[str, Any]]:
    """Latency of the whole streaming step, state in and state out, at every batch size."""
    model = copy.deepcopy(converter).to(bench.device)
    run = prepared(way, model, bench)

    def make(batch: int) -> Callable[[], Any]:
        x, styles = (
            0.1 * torch.randn(batch, 1, CHUNK, device=bench.device),
            0.1 * torch.randn(2, batch, 128, device=bench.device),
        )
        voice, state = model.condition(*styles), model.initial(batch)
        return lambda: run(x, voice, state)

    return ladder(bench, make, graph=way != "tensorrt")


def parts(
    converter: Any, device: torch.device
) -> dict[str, tuple[Any, Callable[[int], tuple[Any, ...]]]]:
    """The streaming model's parts on a device, each with what makes its inputs, state last."""
    model = copy.deepcopy(converter).to(device)
    frames, size = CHUNK // model.hop, model.decoder.style_size

    def normal(*shape: int) -> Tensor:
        return 0.1 * torch.randn(*shape, device=device)

    def decoding(b: int) -> tuple[Any, ...]:
        wide = {"device": device, "dtype": torch.float64}
        track = torch.full((b, frames), 5.0, **wide), torch.ones(b, frames, **wide)  # type: ignore[call-overload]
        content = normal(b, model.decoder.inputs.inputs - 4, frames)
        return content, *track, normal(b, 2, frames), normal(b, size), model.decoder.initial(b)

    bins, bands = model.decoder.istft.matrix.shape[0], model.encoder.bands
    return {
        "mel": (model.analysis, lambda b: (normal(b, 1, CHUNK), model.analysis.initial(b))),
        "mel encoder": (
            model.encoder,
            lambda b: (normal(b, bands, frames), model.encoder.initial(b)),
        ),
        "f0": (model.pitch, lambda b: (normal(b, 100, frames), model.pitch.initial(b))),
        "decoder": (model.decoder, decoding),
        "istft": (
            model.decoder.istft,
            lambda b: (normal(b, 2 * frames, bins).mT, model.decoder.istft.initial(b)),
        ),
    }


def component(converter: Any, name: str, way: str, bench: Bench) -> list[dict[str, Any]]:
    """Latency of one part of the streaming model for a chunk of 25 ms."""
    module, inputs = parts(converter, bench.device)[name]
    run = prepared(way, module, bench)

    def make(batch: int) -> Callable[[], Any]:
        given = inputs(batch)
        return lambda: run(*given)

    return ladder(bench, make, graph=way != "tensorrt")


def paper_parts() -> dict[str, Any]:
    """The paper's four components of inference, the vocoder, and StyleTTS 2's iSTFTNet decoder, as
    `rtvc stats` knows them."""
    from rtvc.models.cost_tables import MODELS

    inference = {
        part.name: part
        for part in (*MODELS["styletts-vc"](), *MODELS["vocoder"]())
        if part.inference
    }
    decoder = next(part for part in MODELS["styletts2-istftnet"]() if part.name == "decoder")
    return {**inference, "iSTFTNet decoder": decoder}


def rows(inputs: tuple[Any, ...], batch: int, device: torch.device) -> tuple[Any, ...]:
    """Example inputs of one row -> the same for `batch` rows on a device."""
    return tuple(
        pytree.tree_map_only(
            Tensor, lambda x: x.to(device).repeat(batch, *[1] * (x.ndim - 1)), list(inputs)
        )
    )


def paper(name: str, way: str, bench: Bench) -> list[dict[str, Any]]:
    """Latency of one of the paper's components on 2.4 s a row (dry: the shortest that it takes);
    full size, random weights."""
    part = paper_parts()[name]
    frames = FRAMES if not bench.dry else 80 if "encoder" in name or "extractor" in name else 4
    bench = replace(bench, batches=bench.batches[-1:]) if bench.dry else bench
    module = part.build().eval().to(bench.device)
    run = prepared(way, module, bench)

    def make(batch: int) -> Callable[[], Any]:
        given = rows(part.inputs(frames), batch, bench.device)
        return lambda: part.run(run, given)

    return ladder(bench, make, graph=way != "tensorrt")


def conversion(way: str, bench: Bench) -> list[dict[str, Any]]:
    """The paper's whole path, wave to wave by mel encoder, pitch extractor, decoder and HiFi-GAN,
    on 2.4 s a row."""
    from rtvc.models.styletts_vc.converter import NEEDED, VoiceConversion

    names = {
        "mel_encoder": "mel encoder",
        "pitch_extractor": "pitch extractor",
        "style_encoder": "style encoder",
        "decoder": "decoder",
    }
    known = paper_parts()
    built = {name: known[names[name]].build() for name in NEEDED} | {
        "vocoder": known["HiFi-GAN vocoder"].build()
    }
    model = VoiceConversion(built).eval().to(bench.device)
    run = prepared(way if way == "fused" else "eager", model, bench)
    frames = 16 if bench.dry else FRAMES
    bench = replace(bench, batches=bench.batches[:1]) if bench.dry else bench

    def make(batch: int) -> Callable[[], Any]:
        wave, style = (
            0.1 * torch.randn(batch, 1, 300 * frames, device=bench.device),
            torch.randn(batch, 128, device=bench.device),
        )
        return lambda: run.convert(wave, style, style)  # type: ignore[attr-defined]

    return ladder(bench, make)


def exactness(converter: Any, bench: Bench) -> dict[str, Any]:
    """The model on fused kernels against float64 on the device, over chunks that carry state; at
    most twice plain torch's error."""
    from rtvc.benchmarks.kernel.run import error

    plain = set_implementation(copy.deepcopy(converter).to(bench.device), "reference")
    best = copy.deepcopy(plain).double()
    best.decoder.source.ramp = torch.arange(1, 301, device=bench.device, dtype=torch.float64) / 300
    models = {
        "plain": plain,
        "fused": set_implementation(copy.deepcopy(plain), "auto"),
        "exact": best,
    }
    torch.manual_seed(0)
    styles = 0.1 * torch.randn(2, 3, 128, device=bench.device)
    with torch.inference_mode():
        voice, states = (
            plain.condition(*styles),
            {name: model.initial(3) for name, model in models.items()},
        )
        states["exact"] = pytree.tree_map(
            lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, states["exact"]
        )
        outputs: dict[str, list[Tensor]] = {name: [] for name in models}
        for _ in range(2 if bench.dry else 8):
            x = 0.1 * torch.randn(3, 1, CHUNK, device=bench.device)
            for name, model in models.items():
                wide = name == "exact"
                y, states[name] = model(
                    x.double() if wide else x, voice.double() if wide else voice, states[name]
                )
                outputs[name].append(y)
    waves = {name: torch.cat(chunks, -1) for name, chunks in outputs.items()}
    off = {name: error(waves[name], waves["exact"]) for name in ("plain", "fused")}
    scale = waves["exact"].square().mean().sqrt().item()
    right = off["fused"] <= max(2 * off["plain"], 1e-7 * scale)
    return {
        "rms": scale,
        "error_of_plain": off["plain"],
        "error_of_fused": off["fused"],
        "right": right,
    }
