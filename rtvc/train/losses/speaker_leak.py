"""Speaker-leak control: a classifier that guesses the speaker from content, through a layer that
reverses gradients."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Reversal(torch.autograd.Function):
    """The identity, whose gradient is negated (Ganin and Lempitsky 2015, "Unsupervised Domain
    Adaptation by Backpropagation")."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """x as it is."""
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """The opposite direction."""
        return -gradients[0]


class SpeakerClassifier(nn.Module):
    """Content (B, C, T) -> logits of the speakers (B, S), from its mean and deviation over time.

    It learns to recognise speakers; whatever made the content learns the opposite.
    """

    def __init__(self, channels: int, speakers: int, hidden: int = 128) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(2 * channels),
            nn.Linear(2 * channels, hidden),
            nn.GELU(),
            nn.Linear(hidden, speakers),
        )

    def forward(self, content: Tensor) -> Tensor:
        """content (B, C, T) -> (B, S)."""
        x: Tensor = Reversal.apply(content.float())  # type: ignore[no-untyped-call]
        deviation = x.var(-1, unbiased=False).clamp_min(1e-6).sqrt()
        logits: Tensor = self.net(torch.cat([x.mean(-1), deviation], 1))
        return logits

    def loss(self, content: Tensor, speaker: Tensor) -> Tensor:
        """Cross entropy; speaker (B,) int64, negative where it does not count."""
        known = (speaker >= 0).sum().clamp_min(1)
        return (
            F.cross_entropy(
                self(content).float(), speaker.clamp_min(-1), ignore_index=-1, reduction="sum"
            )
            / known
        )
