"""What an engine for a GPU is made for: flavour, precision, batch, and the GPUs that may run it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rtvc.errors import ConfigError

Flavour = Literal["auto", "tensorrt", "rtx", "cuda"]
"""`tensorrt`: TensorRT through torch-tensorrt; `rtx`: TensorRT-RTX; `cuda`: torch itself; `auto`:
TensorRT of either kind."""
Precision = Literal["fp32", "fp16"]

MOST_ROWS = 1 << 16
Rows = Annotated[int, Field(ge=1, le=MOST_ROWS)]
"""Sessions in a step."""


class Target(BaseModel):
    """Stands in the manifest of every engine for a GPU.

    Attributes:
        flavour: which compiler.
        precision: `fp16` computes the large learned products in float16, all else in float32.
        batch: fewest rows, the number that is tuned for, and most rows.
        capabilities: compute capabilities of the GPUs that may run it; empty before a GPU is known.
        gpu: the very GPU it was made on, where another one of the same capability will not do.
        kernels: call our own kernels instead of compiling their plain torch references.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    flavour: Flavour = "auto"
    precision: Precision = "fp32"
    batch: tuple[Rows, Rows, Rows] = (1, 16, 256)
    capabilities: tuple[Annotated[str, Field(max_length=40)], ...] = Field(
        default=(), max_length=64
    )
    gpu: str = Field(default="", max_length=200)
    kernels: bool = False

    @model_validator(mode="after")
    def _ascending(self) -> "Target":
        low, usual, most = self.batch
        if not 1 <= low <= usual <= most:
            raise ValueError(
                f"expected a batch with 1 <= MIN <= OPT <= MAX, got {low}:{usual}:{most}"
            )
        return self

    @property
    def rows(self) -> tuple[int, ...]:
        """Numbers of rows worth padding a batch to: the least, the powers of two above it, and the
        most."""
        low, _, most = self.batch
        return tuple(
            sorted({low, most, *(1 << k for k in range(most.bit_length()) if low < 1 << k < most)})
        )

    @property
    def label(self) -> str:
        """For the name of a folder: `rtx-fp16-1-16-256`."""
        return "-".join(
            [
                self.flavour,
                self.precision,
                *map(str, self.batch),
                *(["kernels"] if self.kernels else []),
            ]
        )


def parse_batch(text: str) -> tuple[int, int, int]:
    """`MIN:OPT:MAX`, or one number for all three.

    Raises:
        ConfigError: for anything else.
    """
    parts = text.split(":")
    if len(parts) == 1:
        parts *= 3
    numbers = [int(part) for part in parts if part.isdecimal() and len(part) <= len(str(MOST_ROWS))]
    if (
        len(parts) != 3
        or len(numbers) != 3
        or not 1 <= numbers[0] <= numbers[1] <= numbers[2] <= MOST_ROWS
    ):
        raise ConfigError(
            f"expected a batch MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX <= {MOST_ROWS}, as 1:16:256,"
            f" got {text!r}"
        )
    low, usual, most = numbers
    return low, usual, most
