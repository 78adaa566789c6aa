"""The two style encoders (StyleTTS 2, section 3.1): timbre from mel, prosody from mel, pitch and
voicing."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STYLE = 128
"""Numbers in either style vector."""


class StyleEncoder(nn.Module):
    """(B, C, T) features of a recording -> (B, 128) style.

    Unlike the rest of the streaming model it sees the whole reference: convolutions, then attentive
    statistics pooling (Okabe et al. 2018) over the frames that `mask` (B, T) marks as speech.
    """

    def __init__(self, inputs: int, hidden: int, layers: int = 4) -> None:
        super().__init__()
        self.inputs = inputs
        self.first = nn.Conv1d(inputs, hidden, 5, padding=2)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(layers))
        self.convs = nn.ModuleList(
            nn.Conv1d(hidden, hidden, 5, padding=2 * 2**i, dilation=2**i) for i in range(layers)
        )
        self.attention = nn.Sequential(nn.Linear(hidden, 64), nn.Tanh(), nn.Linear(64, hidden))
        self.out = nn.Linear(2 * hidden, STYLE)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, C, T), mask (B, T) bool -> (B, 128)."""
        return self.with_frames(x, mask)[0]

    def with_frames(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and the frames (B, T, hidden) that it was pooled from."""
        x = F.gelu(self.first(x[:, : self.inputs])) * mask[:, None]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = x + F.gelu(conv(norm(x.mT).mT)) * mask[:, None]
        precise = torch.promote_types(x.dtype, torch.float32)
        frames = x.mT.to(precise)
        weight = torch.softmax(
            self.attention(x.mT).to(precise).masked_fill(~mask[..., None], -1e4), 1
        )
        mean = (weight * frames).sum(1)
        deviation = ((weight * frames.square()).sum(1) - mean.square()).clamp(min=1e-4).sqrt()
        style: Tensor = self.out(torch.cat([mean, deviation], -1))
        return style, frames


class ProsodyHead(nn.Module):
    """Prosodic style (B, 128) -> mean and deviation of log F0, and deviation of log energy, (B,
    3)."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(STYLE, 3)

    def forward(self, style: Tensor) -> Tensor:
        """style (B, 128) -> (B, 3); deviations are positive."""
        mean, spreads = self.out(style).split([1, 2], -1)
        return torch.cat([mean + 5.0, F.softplus(spreads)], -1)
