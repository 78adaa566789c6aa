"""What an engine directory says of itself, in `engine.json`: read as anybody's file, every number
within bounds."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rtvc.engine.graph.target import Target
from rtvc.errors import EngineError
from rtvc.files import kind
from rtvc.printable import first_problem

MANIFEST, FORMAT = "engine.json", 2
"""The format counts what makes older engines wrong to use: since 2, int8 weights leave room for
processors without VNNI."""
LARGEST_MANIFEST = 1 << 18
"""Bytes: a manifest has some two thousand."""
MOST_CHUNK = 48_000
"""Samples of a step: 2 s."""
ANSWERS = 32
"""Numbers of an answer."""
Name = Annotated[str, Field(max_length=300)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+ -]{0,199}$")]
"""Of a file in the engine's own folder: no path leads out of it."""


class Manifest(BaseModel):
    """What an engine directory is, in `engine.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int
    backend: Name
    model: Digest
    chunk: Annotated[int, Field(ge=1, le=MOST_CHUNK)]
    sample_rate: Annotated[int, Field(ge=1, le=1 << 20)]
    hop: Annotated[int, Field(ge=1, le=MOST_CHUNK)]
    latency: Annotated[int, Field(ge=0, le=1 << 20)]
    state: Annotated[int, Field(ge=0, le=1 << 30)]
    voice: Annotated[int, Field(ge=0, le=1 << 20)]
    answer: Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(max_length=ANSWERS)]
    machine: Name
    versions: Annotated[dict[Name, Name], Field(max_length=32)]
    files: Annotated[dict[FileName, Digest], Field(max_length=256)]
    target: Target | None = None

    @model_validator(mode="after")
    def _whole(self) -> "Manifest":
        if self.chunk % self.hop:
            raise ValueError(
                f"a chunk of {self.chunk} samples is not a multiple of the hop {self.hop}"
            )
        return self


class Format(BaseModel):
    """What every format of a manifest says."""

    format: int


def read_manifest(directory: Path) -> Manifest:
    """The manifest of an engine directory.

    Raises:
        EngineError: when there is none or it is of another format.
    """
    path = directory / MANIFEST
    if kind(path) != "file":
        raise EngineError(
            f"{directory} holds no {MANIFEST}: build an engine with `rtvc build --backend … -o"
            f" {directory}`"
        )
    try:
        size = path.stat().st_size
        text = path.read_bytes() if size <= LARGEST_MANIFEST else b""
    except OSError as error:
        raise EngineError(
            f"{path} cannot be read ({error.strerror}): build the engine again"
        ) from error
    if size > LARGEST_MANIFEST:
        raise EngineError(
            f"expected at most {LARGEST_MANIFEST} bytes, {path} has {size}: build the engine again"
        )
    try:
        if (came := Format.model_validate_json(text).format) != FORMAT:
            raise EngineError(
                f"expected format {FORMAT}, got {came} in {path}: build the engine again"
            )
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        raise EngineError(
            f"{path} is damaged ({first_problem(error)}): build the engine again"
        ) from error
