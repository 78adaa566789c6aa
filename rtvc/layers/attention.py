"""Causal self-attention over a bounded past under the state contract."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtvc.layers.contract import Streaming
from rtvc.layers.norm import EPSILON

HEADS = 6
SPAN = 160
"""Frames that a frame can look back to, itself included: 2 s."""
MLP = 2
"""Width of the feed-forward part, as a multiple of the channels."""
HIDDEN = -1e4
"""Added to the scores of frames that must not be heard."""


class AttentionState(NamedTuple):
    """The past of an attention block."""

    past: Tensor  # (B, 2 C, SPAN - 1) keys over values
    present: Tensor  # (B, SPAN - 1) 1 where there was a frame


class AttentionBlock(Streaming):
    """x + Attention(norm(x)), then x + Linear(GELU(Linear(norm(x)))) (Vaswani et al. 2017,
    pre-norm).

    The position is told by a slope of the scores a head, linear in the distance (ALiBi: Press et
    al. 2022, section 3): nothing depends on when the stream began. Both parts begin at zero, so a
    trained network can be grown by the block.
    """

    slopes: Tensor

    def __init__(self, channels: int, heads: int = HEADS, span: int = SPAN) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(
                f"{channels} channels cannot be shared by {heads} heads: expected a multiple"
            )
        self.channels, self.heads, self.span = channels, heads, span
        self.norm, self.mlp_norm = nn.LayerNorm(channels, EPSILON), nn.LayerNorm(channels, EPSILON)
        self.qkv, self.projection = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.up, self.down = (
            nn.Linear(channels, MLP * channels),
            nn.Linear(MLP * channels, channels),
        )
        for last in (self.projection, self.down):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.register_buffer("slopes", 2.0 ** -torch.arange(1, heads + 1), persistent=False)

    def initial(self, batch: int) -> AttentionState:
        """Nothing heard."""
        like = self.projection.weight
        past = self.span - 1
        return AttentionState(
            like.new_zeros(batch, 2 * self.channels, past), like.new_zeros(batch, past)
        )

    def forward(self, x: Tensor, state: AttentionState) -> tuple[Tensor, AttentionState]:
        """x (B, C, T) -> y (B, C, T)."""
        batch, channels, frames = x.shape
        past = self.span - 1
        query, new = self.qkv(self.norm(x.mT)).mT.split([channels, 2 * channels], 1)
        memory = torch.cat([state.past.to(new.dtype), new], -1)
        mask = torch.cat([state.present, state.present.new_ones(batch, frames)], -1)
        key, value = memory.unflatten(1, (2, self.heads, -1)).mT.unbind(
            1
        )  # (B, H, past + T, C / H)
        query = query.unflatten(1, (self.heads, -1)).mT
        # The distance of query i to memory j is i + past - j frames; only 0 .. past of them are
        # within the span.
        distance = (
            torch.arange(frames, device=x.device)[:, None]
            + past
            - torch.arange(past + frames, device=x.device)
        )
        outside = ((distance < 0) | (distance > past)).to(query.dtype) * HIDDEN
        bias = outside - self.slopes.to(query.dtype)[:, None, None] * distance.to(query.dtype)
        bias = bias + ((1 - mask) * HIDDEN).to(query.dtype)[:, None, None]
        y = F.scaled_dot_product_attention(query, key, value, bias)
        x = x + self.projection(y.transpose(1, 2).flatten(2)).mT
        x = x + self.down(F.gelu(self.up(self.mlp_norm(x.mT)))).mT
        return x, AttentionState(memory[..., frames:].to(state.past.dtype), mask[..., frames:])
