"""A limiter under the state contract: whatever comes in, no sample leaves above full scale, and
what is quieter leaves as it came.

A gain computer looks at the peak of each block (Giannoulis, Massberg and Reiss 2012, "Digital
Dynamic Range Compressor Design", feed-forward in the logarithmic domain): its attack is the block
that holds the peak, so there is no look-ahead and no latency, and its release is a straight line
in dB. The gain moves linearly from block to block; what the move comes too late for is caught by a
soft knee without memory.
"""

import math

import torch
from torch import Tensor

from rtvc.layers.contract import Streaming

BLOCK = 75
"""Samples whose peak decides one gain: 3.1 ms at 24 kHz."""
CEILING = 10 ** (-1 / 20)
"""-1 dBFS: peaks are brought down to this, and nothing below it is touched."""
RELEASE = 80.0
"""dB a second by which the gain comes back: 6 dB too loud are forgotten in 75 ms."""
MOST = 1e4
"""Peaks count as no more than this, +80 dB, so that even an absurd one is forgotten within a
second.
"""
FINITE = 3e38
"""Samples above this, infinite ones and NaN are taken for 0: they never reach the state."""
SCAN = 32
"""Blocks whose gains are found in one step."""


class Limiter(Streaming):
    """`y, reduction = limiter(x, reduction)`: x (B, 1, N) -> y (B, 1, N), |y| <= 1, equal to x
    where that keeps below -1 dBFS.
    """

    like: Tensor

    def __init__(self, sample_rate: int) -> None:
        """`sample_rate` is that of x, in Hz."""
        super().__init__()
        self.fall = RELEASE * BLOCK / sample_rate * math.log(10) / 20
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def initial(self, batch: int) -> Tensor:
        """No reduction, (B, 1), in nepers."""
        return self.like.new_zeros(batch, 1)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, 1, N), N a multiple of BLOCK -> y (B, 1, N).

        Raises:
            ValueError: for another N.
        """
        if x.shape[-1] % BLOCK:
            raise ValueError(
                f"expected a chunk of a multiple of {BLOCK} samples, got {x.shape[-1]}"
            )
        blocks = torch.where(x.abs() <= FINITE, x, torch.zeros_like(x)).reshape(
            x.shape[0], -1, BLOCK
        )
        reduction = self.reduction(blocks.abs().amax(-1), state.to(x.dtype))
        gain = torch.exp(-torch.cat([state.to(x.dtype), reduction], 1))
        ramp = torch.arange(1, BLOCK + 1, device=x.device).to(x.dtype) / BLOCK
        blocks = blocks * (gain[:, :-1, None] + (gain[:, 1:] - gain[:, :-1])[..., None] * ramp)
        return knee(blocks).reshape(x.shape), reduction[:, -1:]

    def reduction(self, peak: Tensor, last: Tensor) -> Tensor:
        """The peaks (B, K) of blocks and the reduction (B, 1) before them -> the reduction (B, K)
        at the end of each, in nepers.

        `r[k] = max(log(peak[k] / CEILING), r[k - 1] - fall, 0)`, in closed form: the largest of
        what every block so far has left over by now.
        """
        excess = torch.log(peak.clamp(CEILING, MOST) / CEILING)
        excess = torch.where(peak > CEILING, excess, torch.zeros_like(excess))
        parts = []
        for part in excess.split(SCAN, 1):
            at = torch.arange(part.shape[1], device=part.device)
            lag = (at[:, None] - at[None]).to(part.dtype)
            left = torch.where(
                lag >= 0,
                part[:, None] - self.fall * lag.clamp(min=0),
                torch.zeros_like(part)[:, None],
            )
            reductions = torch.maximum(left.amax(-1), last - self.fall * (at + 1).to(part.dtype))
            last = reductions[:, -1:]
            parts.append(reductions)
        return torch.cat(parts, 1)


def knee(x: Tensor) -> Tensor:
    """x of any shape -> the same up to -1 dBFS; above, a hyperbolic tangent that meets it in value
    and slope and ends at 1.
    """
    room = 1 - CEILING
    level = x.abs()
    bent = torch.sign(x) * (CEILING + room * torch.tanh((level - CEILING).clamp(min=0) / room))
    return torch.where(level <= CEILING, x, bent).clamp(-1, 1)


def limited(x: Tensor, sample_rate: int) -> Tensor:
    """A whole recording x (B, 1, N), any N, through a `Limiter`: for models that have none at
    their end.
    """
    limiter = Limiter(sample_rate).to(x)
    padded = torch.nn.functional.pad(x, (0, -x.shape[-1] % BLOCK))
    y: Tensor = limiter(padded, limiter.initial(len(x)))[0]
    return y[..., : x.shape[-1]]
