"""Short-time analysis and synthesis under the state contract, as matrix products (exact, and
exportable)."""

import math
from fractions import Fraction

import torch
from torch import Tensor

from rtvc.kernels.istft import istft
from rtvc.layers.contract import Streaming
from rtvc.layers.dispatch import Dispatched


def dft(size: int) -> Tensor:
    """The real DFT as a matrix (size, 2 * bins): cosines, then negated sines; float64."""
    bins = size // 2 + 1
    angle = (
        2
        * math.pi
        * (
            torch.arange(size, dtype=torch.float64)[:, None]
            * torch.arange(bins, dtype=torch.float64)
            % size
        )
        / size
    )
    return torch.cat([torch.cos(angle), -torch.sin(angle)], 1)


def inverse_dft(size: int) -> Tensor:
    """Its inverse (2 * bins, size): real parts, then imaginary parts, to samples; float64."""
    bins = size // 2 + 1
    weight = torch.full((bins, 1), 2.0 / size, dtype=torch.float64)
    weight[0] = weight[-1] = 1.0 / size
    forward = dft(size).T
    return torch.cat([forward[:bins] * weight, forward[bins:] * weight])


def root_hann(size: int, hop: int) -> Tensor:
    """The periodic square-root Hann window, scaled so that analysis and synthesis with it
    reconstruct exactly; float64."""
    window = torch.hann_window(size, dtype=torch.float64).sqrt()
    return window * math.sqrt(2 * hop / size)


class Stft(Streaming):
    """Samples to spectra of the last `size` samples, one every `hop`: x (B, 1, N) -> (B, 2 * bins,
    N / hop)."""

    matrix: Tensor

    def __init__(self, size: int, hop: int) -> None:
        super().__init__()
        if size % hop:
            raise ValueError(f"a window of {size} samples is not a multiple of the hop {hop}")
        self.size, self.hop, self.past, self.ratio = size, hop, size - hop, Fraction(1, hop)
        self.register_buffer(
            "matrix", (root_hann(size, hop)[:, None] * dft(size)).float(), persistent=False
        )

    def initial(self, batch: int) -> Tensor:
        """Silence, (B, 1, size - hop)."""
        return self.matrix.new_zeros(batch, 1, self.past)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, 1, N) -> real parts over imaginary parts (B, 2 * bins, N / hop)."""
        x = torch.cat([state, x], -1)
        hops = x.reshape(x.shape[0], -1, self.hop)
        frames = hops.shape[1] - self.past // self.hop
        windows = torch.cat([hops[:, k : k + frames] for k in range(self.size // self.hop)], -1)
        return (windows @ self.matrix).mT, x[..., x.shape[-1] - self.past :]


class Istft(Streaming, Dispatched):
    """Spectra to samples by windowed overlap-add: x (B, 2 * bins, T) -> (B, 1, T * hop).

    The samples of a hop are complete once the last frame that covers them is in: output n of frame
    t is the first hop of its window, so `Istft(Stft(x))` lags x by size - hop samples. The sum of
    what later frames still add to is the state.
    """

    matrix: Tensor

    def __init__(self, size: int, hop: int) -> None:
        super().__init__()
        if size % hop:
            raise ValueError(f"a window of {size} samples is not a multiple of the hop {hop}")
        self.size, self.hop, self.tail, self.ratio = size, hop, size - hop, Fraction(hop)
        self.register_buffer(
            "matrix", (inverse_dft(size) * root_hann(size, hop)).float(), persistent=False
        )

    def initial(self, batch: int) -> Tensor:
        """Silence, (B, 1, size - hop)."""
        return self.matrix.new_zeros(batch, 1, self.tail)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, 2 * bins, T), real parts over imaginary parts -> y (B, 1, T * hop)."""
        return istft(x, state, self.matrix, hop=self.hop, implementation=self.implementation)
