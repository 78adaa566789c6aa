"""The real FFT as matrix products, for graphs whose runtimes run products well and disagree on what
an FFT node means."""

import torch
from torch import Tensor

from rtvc.errors import EngineError


def rfft(x: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """`torch.fft.rfft` over the last axis as small matrix products (Cooley and Tukey, 1965: n =
    rows * columns).

    x (..., N) -> complex (..., n // 2 + 1).

    Raises:
        EngineError: for another axis, a norm, or an odd prime length.
    """
    size = x.shape[-1] if n is None else n
    rows = max(
        (d for d in range(1, int(size**0.5) * 2 + 1) if size % d == 0 and d * d <= 2 * size),
        default=1,
    )
    if dim not in (-1, x.ndim - 1) or norm not in (None, "backward") or rows == 1:
        raise EngineError(
            f"an FFT of {size} samples over axis {dim} with norm {norm} cannot be exported: use the"
            " torch-eager backend"
        )
    # Sample n = n1 * columns + n2, bin k = k1 + rows * k2. Then e^(-2 pi i n k / size) falls into
    # three factors, by n1 k1, n2 k1 and n2 k2: a product over n1, a turn, and a product over n2.
    # A real signal's upper half mirrors the lower, so half of the k2 is enough.
    columns, last = size // rows, size // rows // 2 + 1
    x = torch.nn.functional.pad(x[..., :size], (0, max(0, size - x.shape[-1]))).unflatten(
        -1, (rows, columns)
    )

    def wave(a: int, b: int, period: int) -> tuple[Tensor, Tensor]:
        # In float64, modulo the period: the cosine of a large angle is as exact as of a small one.
        angle = (
            -2
            * torch.pi
            * (
                torch.arange(a, dtype=torch.float64)[:, None]
                * torch.arange(b, dtype=torch.float64)
                % period
            )
            / period
        )
        return torch.cos(angle).to(x), torch.sin(angle).to(x)

    cosine, sine = wave(rows, rows, rows)
    real, imaginary = cosine @ x, sine @ x
    cosine, sine = wave(rows, columns, size)
    real, imaginary = real * cosine - imaginary * sine, real * sine + imaginary * cosine
    cosine, sine = wave(columns, last, columns)
    # The last product is of complex numbers: as one of real matrices with both parts side by side
    parts = torch.cat([real, imaginary], -1) @ torch.cat(
        [torch.cat([cosine, sine], 1), torch.cat([-sine, cosine], 1)]
    )
    real, imaginary = (part.mT.flatten(-2)[..., : size // 2 + 1] for part in parts.split(last, -1))
    return torch.complex(real.contiguous(), imaginary.contiguous())
