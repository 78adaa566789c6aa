"""Real or made, judged on the frozen features of a recogniser: a discriminator that a CPU can train
against.

Small heads look at what a trained network already hears, mixed by fixed random projections and seen
at several time scales; they need a tenth of the time and an eleventh of the memory of
discriminators of the waveform and reach the same quality (projected GANs: Sauer et al. 2021; for
vocoders: arXiv 2508.17874).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtvc.models.styletts2.discriminators import SLOPE, Verdict

SCALES = (1, 2, 4)
"""Frames that are averaged before a head looks."""


class FeatureHead(nn.Module):
    """Frozen features (B, C, T) -> a verdict on every place."""

    mixer: Tensor

    def __init__(self, channels: int, width: int, scale: int, seed: int) -> None:
        super().__init__()
        self.scale = scale
        generator = torch.Generator().manual_seed(seed)
        # Fixed: a mixer that learns would look only at what already tells them apart.
        self.register_buffer(
            "mixer", torch.randn(width, channels, 1, generator=generator) / channels**0.5
        )
        self.convs = nn.ModuleList(
            nn.utils.parametrizations.spectral_norm(nn.Conv1d(width, width, 3, padding=1))
            for _ in range(2)
        )
        self.out = nn.Conv1d(width, 1, 3, padding=1)

    def forward(self, features: Tensor) -> Verdict:
        """See the class."""
        x = F.conv1d(features, self.mixer.to(features.dtype))
        x = F.avg_pool1d(x, self.scale) if self.scale > 1 else x
        seen = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), SLOPE)
            seen.append(x)
        return Verdict(self.out(x).flatten(1), seen)


class FeatureDiscriminator(nn.Module):
    """Layers of a frozen recogniser, (B, C, T) each -> one verdict for each of them and each time
    scale."""

    def __init__(
        self, channels: int, layers: int, width: int = 96, scales: Sequence[int] = SCALES
    ) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            FeatureHead(channels, width, scale, seed=7 * layer + scale)
            for layer in range(layers)
            for scale in scales
        )
        self.scales = len(scales)

    def forward(self, layers: Sequence[Tensor]) -> list[Verdict]:
        """See the class."""
        normal = [F.layer_norm(layer.mT.float(), layer.shape[1:2]).mT for layer in layers]
        return [head(normal[number // self.scales]) for number, head in enumerate(self.heads)]
