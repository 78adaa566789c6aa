"""What an engine was made of, and whether that is what is here: model, code, packages, machine and
files."""

import hashlib
from pathlib import Path

import torch

from rtvc.engine.backends.base import Layout
from rtvc.engine.graph.export import weights
from rtvc.engine.graph.manifest import ANSWERS, Manifest, read_manifest
from rtvc.engine.graph.target import Target
from rtvc.engine.registry import GPU_BACKENDS, machine, versions
from rtvc.engine.tensorrt import flavours
from rtvc.errors import EngineError
from rtvc.models.streaming.interface import Converter

ANSWER = 0.01
"""Largest difference of an answer, as a share of its largest value, that is put down to another
machine's rounding."""


def model_hash(converter: Converter) -> str:
    """SHA-256 over the latency and the names, shapes and values of all weights, as hexadecimal:
    weights with a latency dial are another model at each of its settings."""
    digest = hashlib.sha256(f"{type(converter).__name__} {converter.latency}".encode())
    for name, tensor in sorted(weights(converter).items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(
            tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()


def answer(converter: Converter, chunk: int) -> list[float]:
    """What the converter itself says to a fixed signal: tells code that changed under unchanged
    weights; 32 numbers."""
    generator = torch.Generator().manual_seed(1)
    acoustic, prosodic, x = (
        torch.randn(*shape, generator=generator) * 0.1
        for shape in ((1, 128), (1, 128), (4, 1, 1, chunk))
    )
    with torch.inference_mode():
        voice, state = converter.condition(acoustic, prosodic), converter.initial(1)
        for block in x:
            y, state = converter(block, voice, state)
    return [float(value) for value in y[0, 0, :: max(1, chunk // ANSWERS)][:ANSWERS]]


def file_hash(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(manifest: Manifest, converter: Converter, directory: Path) -> None:
    """Refuses an engine that is not of this model, these versions, this machine, or whose files
    changed.

    Raises:
        EngineError: saying which, and to build again.
    """
    layout = Layout.of(converter.initial(1))
    again = f"build it again: rtvc build --backend {manifest.backend} -o {directory}"
    if (manifest.target is not None) != (manifest.backend in GPU_BACKENDS):
        raise EngineError(
            f"the manifest of the engine in {directory} does not fit the backend"
            f" {manifest.backend}: {again}"
        )
    facts = {
        "model": (manifest.model[:12], model_hash(converter)[:12]),
        "state size": (manifest.state, layout.size),
        "sample rate": (manifest.sample_rate, converter.sample_rate),
        "hop": (manifest.hop, converter.hop),
        "latency": (manifest.latency, converter.latency),
        "versions": (manifest.versions, versions(manifest.backend, manifest.target)),
        "machine": (manifest.machine, "any" if manifest.machine == "any" else machine()),
    }
    for what, (built, here) in facts.items():
        if built != here:
            raise EngineError(
                f"the engine in {directory} was made for the {what} {built}, here it is {here}:"
                f" {again}"
            )
    outputs, scale = answer(converter, manifest.chunk), max(map(abs, manifest.answer), default=1.0)
    apart = max((abs(a - b) for a, b in zip(outputs, manifest.answer, strict=False)), default=0.0)
    if len(outputs) != len(manifest.answer) or apart > ANSWER * max(scale, 1e-6):
        raise EngineError(
            f"the engine in {directory} was made by another version of the model's code: {again}"
        )
    for name, digest in manifest.files.items():
        if not (directory / name).is_file() or file_hash(directory / name) != digest:
            raise EngineError(
                f"the file {name} of the engine in {directory} is missing or was changed: {again}"
            )
    if manifest.target is not None:
        flavours.fits(manifest.target, directory, again)


def check_target(manifest: Manifest, target: Target, directory: Path) -> None:
    """Refuses an engine that was built with another precision, or for fewer rows, than is asked
    for.

    Raises:
        EngineError: saying which.
    """
    built = manifest.target or Target()
    if built.precision != target.precision:
        raise EngineError(
            f"the engine in {directory} computes in {built.precision}, {target.precision} is asked"
            f" for: build it again with --precision {target.precision}"
        )
    if built.batch[0] > target.batch[0] or built.batch[2] < target.batch[2]:
        batch = ":".join(map(str, target.batch))
        raise EngineError(
            f"the engine in {directory} takes {built.batch[0]} to {built.batch[2]} rows,"
            f" {target.batch[0]} to {target.batch[2]} are asked for: build it again with --batch"
            f" {batch}"
        )


def refittable(
    directory: Path, backend: str, target: Target | None, chunk: int, converter: Converter
) -> Path:
    """An engine directory whose engine may take the converter's weights.

    Raises:
        EngineError: when it was built for anything but other weights.
    """
    manifest = read_manifest(directory)
    size = Layout.of(converter.initial(1)).size
    facts = {
        "backend": (manifest.backend, backend),
        "target": (manifest.target, target),
        "chunk": (manifest.chunk, chunk),
        "state size": (manifest.state, size),
        "versions": (manifest.versions, versions(backend, target)),
    }
    for what, (built, asked) in facts.items():
        if built != asked:
            raise EngineError(
                f"expected the {what} {asked}, the engine in {directory} has {built}: build anew,"
                " without --refit"
            )
    for name, digest in manifest.files.items():
        if not (directory / name).is_file() or file_hash(directory / name) != digest:
            raise EngineError(
                f"the file {name} of the engine in {directory} is missing or was changed: build"
                " anew, without --refit"
            )
    return directory
