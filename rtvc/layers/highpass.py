"""A Butterworth high-pass under the state contract: takes DC and hum out of what a model hears.

A recursive filter is linear in the samples of a block and in the state before it, so a block is
two matrix products (Burrus 1972, "Block realization of digital filters"): exact for every
chunking, exportable, and no loop over samples. The matrices and the products are float64, since
the poles lie within a hundredth of the unit circle.
"""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rtvc.layers.contract import Streaming

BLOCK = 60
"""Samples in a matrix product: chunks hold a multiple of it."""
SCAN = 20
"""Blocks whose states are found in one matrix product."""
HORIZON = 8_192
"""Samples after which nothing of a state is left, for cut-offs from 0.1 % of the sample rate."""

Matrix = npt.NDArray[np.float64]


def butterworth(order: int, cutoff: float, sample_rate: float) -> tuple[Matrix, Matrix, Matrix]:
    """A high-pass as `s' = A s + B x`, `y = C s + x * D`: returns A (S, S), B (S,) and [D, C] (1 +
    S,), S = order.

    Analogue poles on a circle of the cut-off, carried over by the bilinear transform (Oppenheim
    and Schafer, section 7.1), in sections of second order one after the other. `order` is even,
    `cutoff` (-3 dB) and `sample_rate` in Hz.
    """
    warped = math.tan(math.pi * cutoff / sample_rate)
    a, b, c, d = np.zeros((0, 0)), np.zeros(0), np.zeros(0), 1.0
    for section in range(order // 2):
        damping = 2 * math.sin(math.pi * (2 * section + 1) / (2 * order))
        scale = 1 / (1 + damping * warped + warped**2)
        a1, a2 = 2 * scale * (warped**2 - 1), scale * (1 - damping * warped + warped**2)
        # Transposed direct form of (1, -2, 1) * scale over (1, a1, a2), fed with what came so far.
        own, enters = np.array([[-a1, 1.0], [-a2, 0.0]]), scale * np.array([-2.0 - a1, 1.0 - a2])
        a = np.block([[a, np.zeros((len(a), 2))], [np.outer(enters, c), own]])
        b = np.concatenate([b, enters * d])
        c, d = np.concatenate([scale * c, [1.0, 0.0]]), scale * d
    return a, b, np.concatenate([[d], c])


class HighPass(Streaming):
    """`y, state = highpass(x, state)`: x (B, 1, N) without what lies below the cut-off, N a
    multiple of BLOCK; no latency.

    The state (B, S) is scaled so that its norm is that of the output that it would still bring if
    nothing followed (S = order): no digits are lost where an engine computes it in float32.
    """

    shape: Tensor
    enter: Tensor
    leave: Tensor
    carry: Tensor
    spread: Tensor

    def __init__(self, sample_rate: int, cutoff: float, order: int = 2) -> None:
        """`cutoff` is where power is halved, in Hz; `order`, even, how steep: 6 dB an octave
        each.
        """
        super().__init__()
        self.order = order
        a, b, dc = butterworth(order, cutoff, sample_rate)
        future = dc[None, 1:]
        while len(future) < HORIZON:
            future = np.concatenate([future, future @ np.linalg.matrix_power(a, len(future))])
        scale = np.linalg.qr(future)[1]  # of the output that a state would still bring
        inverse = np.linalg.inv(scale)
        a, b, c, d = scale @ a @ inverse, scale @ b, dc[1:] @ inverse, dc[:1]
        powers = [np.eye(order)]
        for _ in range(BLOCK * SCAN):
            powers.append(powers[-1] @ a)
        enter = np.stack([power @ b for power in powers[:BLOCK]])  # a sample, later
        impulse, lag = (
            np.concatenate([d, enter[:-1] @ c]),
            np.arange(BLOCK)[None] - np.arange(BLOCK)[:, None],
        )
        after = np.zeros((SCAN, order, SCAN, order))
        for k in range(SCAN):
            for j in range(k + 1):
                after[j, :, k] = powers[BLOCK * (k - j)].T
        # x[i] in y[j]; x[i] in the state after the block; the state before the block in y[j];
        # in the state after block k; and what enters in block j in the state after block k.
        self._keep("shape", np.where(lag >= 0, impulse[lag.clip(0)], 0.0))  # (BLOCK, BLOCK)
        self._keep("enter", enter[::-1])  # (BLOCK, S)
        self._keep("leave", np.stack([c @ power for power in powers[:BLOCK]], 1))  # (S, BLOCK)
        carry = [power.T for power in powers[BLOCK::BLOCK]]
        self._keep("carry", np.concatenate(carry, 1))  # (S, SCAN * S)
        self._keep("spread", after.reshape(SCAN * order, SCAN * order))

    def _keep(self, name: str, matrix: Matrix) -> None:
        self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(matrix)), persistent=False)

    def initial(self, batch: int) -> Tensor:
        """Silence, (B, S) float64."""
        return self.shape.new_zeros(batch, self.order, dtype=torch.float64)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, 1, N) -> y (B, 1, N).

        Raises:
            ValueError: N is no multiple of BLOCK.
        """
        if x.shape[-1] % BLOCK:
            raise ValueError(
                f"expected a chunk of a multiple of {BLOCK} samples, got {x.shape[-1]}"
            )
        blocks = x.double().reshape(x.shape[0], -1, BLOCK)
        entered = blocks @ self.enter.double()
        before: list[Tensor] = []
        for part in entered.split(SCAN, 1):
            size = part.shape[1] * self.order
            after = (
                part.flatten(1) @ self.spread.double()[:size, :size]
                + state @ self.carry.double()[:, :size]
            )
            after = after.unflatten(1, (-1, self.order))
            before += [state[:, None], after[:, :-1]]
            state = after[:, -1]
        y = blocks @ self.shape.double() + torch.cat(before, 1) @ self.leave.double()
        return y.to(x.dtype).reshape(x.shape), state
