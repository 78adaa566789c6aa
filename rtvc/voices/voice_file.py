"""Voice files: what may be written where, and what a file must hold to be one. None of it is
believed."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from rtvc import checks
from rtvc.errors import CheckpointError, OutputError, VoiceError
from rtvc.files import StrPath, check_target, is_stream, kind
from rtvc.models.loading import kind as type_of
from rtvc.models.loading import listed
from rtvc.printable import printable
from rtvc.tensorfile import FLOATS, opened
from rtvc.voices.provenance import fitted_weights, read_source

SUFFIX = ".voice"
"""Of voice files: what does not end so is taken for a recording."""
FORMAT = "rtvc-voice"
VERSION = "1"
LARGEST_FILE = 1 << 20
"""Bytes: a voice file is a few kB, a fitted one some twenty, anything above this is not one."""
LONGEST_NAME = 200


class Contents(NamedTuple):
    """What a voice file holds."""

    tensors: Mapping[str, Tensor]
    """`acoustic`, `prosodic` and, of a fitted voice, `fine`."""
    name: str
    source: dict[str, Any]


def check_voice_file(
    path: StrPath, *, sources: Iterable[StrPath] = (), force: bool | None = None
) -> Path:
    """The path, if a voice file can be written there; to be asked before long work.

    Args:
        path: of the file, or of a pipe or device; `-` is standard output.
        sources: files that are read, none of which is to be lost.
        force: replace the target even if it is one of the sources; None where nobody can say so.

    Raises:
        VoiceError: it does not end in `.voice`, cannot be written, or is a source.
    """
    path = Path(checks.path(path, "the file of a voice", VoiceError))
    if path.suffix != SUFFIX and not is_stream(path):
        got = repr(path.suffix) if path.suffix else "no suffix"
        better = path.with_name(f"{path.name}{SUFFIX}") if path.name else f"NAME{SUFFIX}"
        raise VoiceError(f"{path}: expected a name ending in {SUFFIX}, got {got}: write {better}")
    try:
        return check_target(path, sources=sources, force=force)
    except OutputError as error:
        raise VoiceError(str(error)) from error


def encoded(tensors: Mapping[str, Tensor], name: str, source: Mapping[str, Any]) -> bytes:
    """The bytes of a voice file.

    Raises:
        VoiceError: `source` is not JSON, or too long.
    """
    from safetensors.torch import save

    try:
        text = json.dumps(source, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise VoiceError(
            f"the source of voice {name!r} is not JSON ({error}): keep numbers, texts and lists in"
            " it"
        ) from error
    metadata = {"format": FORMAT, "version": VERSION, "name": name, "source": text}
    content = save(dict(tensors), metadata)
    if len(content) > LARGEST_FILE:
        raise VoiceError(
            f"expected at most {LARGEST_FILE} bytes, got {len(content)} for voice {name!r}: shorten"
            " its source"
        )
    return content


def read_file(path: str | os.PathLike[str]) -> Contents:
    """What a file holds; nothing in it is ever run.

    Raises:
        VoiceError: no such file, or one that is truncated, foreign, hostile or of a later version.
    """
    path = Path(checks.path(path, "a voice", VoiceError))
    if (there := kind(path)) != "file":
        got = f"a {there}" if there else "nothing there"
        advice = "make one with `rtvc voice create REFERENCE… -o NAME.voice`"
        raise VoiceError(f"{path}: expected a voice file, got {got}: {advice}")
    if path.stat().st_size > LARGEST_FILE:
        raise VoiceError(
            f"{path}: expected a few kB, got {path.stat().st_size} bytes: is it a recording, or a"
            " model?"
        )
    try:
        with opened(path, largest=LARGEST_FILE) as file:
            tensors = file.read()
    except CheckpointError as error:
        raise VoiceError(
            f"{path} is no voice file ({error}): make one with `rtvc voice create`"
        ) from error
    return contents_of(tensors, file.metadata, str(path))


def contents_of(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], where: str) -> Contents:
    """What a file's tensors and texts say, if they are those of a voice.

    Raises:
        VoiceError: they are not.
    """
    if metadata.get("format") != FORMAT or set(tensors) - {"fine"} != {"acoustic", "prosodic"}:
        raise VoiceError(
            f"{where} is a safetensors file but no voice (it holds"
            f" {listed(sorted(tensors)) or 'nothing'})"
        )
    if metadata.get("version") != VERSION:
        raise VoiceError(
            f"{where}: expected a voice of version {VERSION}, got"
            f" {printable(metadata.get('version'), 20)}: update rtvc"
        )
    if other := [tensor for tensor in tensors.values() if tensor.dtype not in FLOATS]:
        raise VoiceError(f"{where}: expected floating point, got {type_of(other[0])} numbers")
    try:
        source = read_source(metadata.get("source", "{}"))
    except ValueError as error:
        raise VoiceError(f"{where} holds {error}: make the voice again") from error
    if "fine" in tensors and fitted_weights(source) is None:
        raise VoiceError(
            f"{where} is fitted, and does not say to which weights: make the voice again"
        )
    return Contents(tensors, shown_name(metadata.get("name", "")) or Path(where).stem, source)


def shown_name(name: str) -> str:
    """A name without what cannot be shown, and of bounded length."""
    return "".join(c for c in name if c.isprintable())[:LONGEST_NAME]
