"""Safetensors files of strangers: what they announce is bounded and looked at before a tensor of
theirs is read.

The header of a file names its tensors with their types and shapes. The safetensors library makes
sure that they fill the file, neither more nor less; here the header's own size is bounded first,
and whoever wants the tensors compares names, shapes and types with what they are for. Then they are
read.
"""

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rtvc.errors import CheckpointError, RtvcError
from rtvc.printable import printable

LARGEST_FILE = 1 << 33
"""Bytes of a file of weights, 8 GiB: the largest of the authors' has under 1 GB."""
LARGEST_HEADER = 1 << 23
"""Bytes that name its tensors, 8 MiB: a tensor takes some hundred."""
MOST_TENSORS = 1 << 14
"""Tensors in a file: a whole checkpoint of StyleTTS 2 has some 3,000."""
MOST_AXES = 8
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Types that weights may have. Whole numbers and eight-bit floats mean nothing without the scales
they were made with."""
TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Types by the names that safetensors gives them; a file with any other is refused."""


class Described(NamedTuple):
    """What is known of a tensor before it is read; a `Tensor` has the same two attributes."""

    dtype: torch.dtype
    shape: torch.Size


@dataclass(frozen=True)
class TensorFile:
    """An open file.

    Attributes:
        path: where it lies.
        metadata: texts of the header, by name.
        described: its tensors, by name.
    """

    path: Path
    metadata: Mapping[str, str]
    described: Mapping[str, Described]
    _file: Any
    _error: type[RtvcError]

    def read(self, names: Collection[str] | None = None) -> dict[str, Tensor]:
        """The tensors of these names (default: all), on the CPU, in memory of their own.

        Raises:
            RtvcError: of the kind that `opened` was told: they cannot be read.
        """
        try:
            return {
                name: self._file.get_tensor(name).clone()
                for name in (self.described if names is None else names)
            }
        except Exception as failure:  # the library names what it finds in several ways
            raise _damaged(self.path, failure, self._error) from failure


@contextmanager
def opened(
    path: str | os.PathLike[str],
    error: type[RtvcError] = CheckpointError,
    largest: int = LARGEST_FILE,
) -> Iterator[TensorFile]:
    """A safetensors file whose header is within bounds; it is closed when the block ends.

    Args:
        path: of the file.
        error: what is raised.
        largest: bytes of a file that may be one.

    Raises:
        RtvcError: of the kind `error`: the file is missing, no regular file, too large, truncated,
            foreign, or announces what no file of weights holds.
    """
    from safetensors import safe_open

    file = Path(path)
    _check_size(file, error, largest)
    with ExitStack() as stack:
        try:
            raw = stack.enter_context(safe_open(file, "pt"))
            metadata, names = raw.metadata() or {}, list(raw.keys())
            if len(names) > MOST_TENSORS:
                raise error(
                    f"expected at most {MOST_TENSORS} tensors, {file} names {len(names)}: it is"
                    " no file of weights"
                )
            slices = {name: raw.get_slice(name) for name in names}
            announced = {
                name: (str(part.get_dtype()), tuple(part.get_shape()))
                for name, part in slices.items()
            }
        except RtvcError:
            raise
        except Exception as failure:  # the library names what it finds in several ways
            raise _damaged(file, failure, error) from failure
        yield TensorFile(file, metadata, _described(file, announced, error), raw, error)


def _check_size(file: Path, error: type[RtvcError], largest: int) -> None:
    """Refuses what is no regular file, or too large, or announces a header that it cannot hold."""
    if not file.is_file():
        raise error(
            f"expected tensors (.safetensors), {file} is not there or not a file: check the path"
        )
    try:
        size = file.stat().st_size
        with file.open("rb") as start:
            header = int.from_bytes(start.read(8), "little")
    except OSError as failure:
        raise error(
            f"{file} cannot be read ({failure.strerror}): check its permissions"
        ) from failure
    if size > largest:
        raise error(
            f"expected at most {largest} bytes, {file} has {size}: is it another kind of file?"
        )
    if header > min(LARGEST_HEADER, size - 8):
        raise error(
            f"expected a header of at most {max(0, min(LARGEST_HEADER, size - 8))} bytes, {file}"
            f" ({size} bytes) announces one of {header}: it is truncated or no checkpoint; get the"
            " file again"
        )


def _described(
    file: Path, announced: Mapping[str, tuple[str, tuple[int, ...]]], error: type[RtvcError]
) -> dict[str, Described]:
    """The tensors' types and shapes in torch's terms, where they are such as weights can have."""
    for name, (dtype, shape) in announced.items():
        if dtype not in TYPES:
            raise error(
                f"expected types {', '.join(TYPES)}, {file} holds {printable(name)} of type"
                f" {dtype}: export it again"
            )
        if len(shape) > MOST_AXES:
            raise error(
                f"expected at most {MOST_AXES} axes, {file} holds {printable(name)} of"
                f" {len(shape)}: it holds no weights"
            )
    return {
        name: Described(TYPES[dtype], torch.Size(shape))
        for name, (dtype, shape) in announced.items()
    }


def _damaged(file: Path, failure: Exception, error: type[RtvcError]) -> RtvcError:
    """One line for a file that the library refuses."""
    return error(
        f"{file} is truncated or no checkpoint ({type(failure).__name__}: {first_line(failure)}):"
        " get the file again"
    )


def first_line(failure: BaseException) -> str:
    """What a library says of a failure, on one line of bounded length."""
    return printable((str(failure).strip().splitlines() or [""])[0], 160)
