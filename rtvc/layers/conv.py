"""Causal convolutions under the state contract."""

import math
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtvc.layers.contract import Streaming


class Conv(Streaming):
    """Causal convolution. `right` frames of the receptive field lie in the future and are paid for
    as latency.

    Runs as one matrix product over concatenated taps, frames first in memory: as fast as `conv1d`
    on long sequences and several times faster at streaming chunk sizes on a CPU. The weight is (C',
    K, C), so that the product needs no copy.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        dilation: int = 1,
        right: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if right % stride:
            raise ValueError(
                f"a look-ahead of {right} frames is not a multiple of the stride {stride}"
            )
        if not 0 <= right <= (kernel - 1) * dilation:
            raise ValueError(
                f"a look-ahead of {right} frames does not fit a receptive field of"
                f" {(kernel - 1) * dilation + 1}"
            )
        self.inputs, self.outputs, self.kernel, self.stride, self.dilation = (
            inputs,
            outputs,
            kernel,
            stride,
            dilation,
        )
        self.past = (kernel - 1) * dilation + 1 - stride
        if self.past < 0:
            raise ValueError(
                f"kernel {kernel} is shorter than stride {stride}: input frames would be skipped"
            )
        self.latency, self.ratio = right // stride, Fraction(1, stride)
        bound = 1 / math.sqrt(inputs * kernel)
        self.weight = nn.Parameter(torch.empty(outputs, kernel, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound)) if bias else None

    def initial(self, batch: int) -> Tensor:
        """Zeros, (B, C, past)."""
        return self.weight.new_zeros(batch, self.inputs, self.past)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, C, T) -> y (B, C', T / stride)."""
        if x.shape[-1] % self.stride:
            raise ValueError(
                f"expected a chunk of a multiple of the stride {self.stride}, got {x.shape[-1]}"
                " frames"
            )
        frames = x.mT
        if self.past:
            frames = torch.cat([state.mT.to(x.dtype), frames], 1)
            state = frames[:, frames.shape[1] - self.past :].mT
        if self.kernel > 1:
            span = frames.shape[1] - self.past - self.stride + 1
            frames = torch.cat(
                [
                    frames[:, k * self.dilation : k * self.dilation + span : self.stride]
                    for k in range(self.kernel)
                ],
                -1,
            )
        return F.linear(frames, self.weight.flatten(1), self.bias).mT, state
