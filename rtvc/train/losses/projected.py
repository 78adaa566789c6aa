"""Real or made, judged by small heads on what is already known of a sound: discriminators that a
CPU can train against.

On the frozen features of a recogniser, mixed by fixed random projections and seen at several time
scales, heads need a tenth of the time and an eleventh of the memory of discriminators of the
waveform and reach the same quality (projected GANs: Sauer et al. 2021; for vocoders: arXiv
2508.17874). On log-mels, whose bands are channels in place of a second dimension of a picture, they
tell what was made within a hundred updates, where pictures of spectra need thousands.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtvc.audio.mel import SAMPLE_RATE
from rtvc.audio.mel_distance import htk_filters, magnitude
from rtvc.models.styletts2.discriminators import SLOPE, Verdict

SCALES = (1, 2, 4)
"""Frames that are averaged before a head looks."""
HIGHEST = 7_500.0
"""Hz below which all recordings hold sound."""
FLOOR = 1e-5
"""Added to a band's power before its logarithm is taken."""


class FeatureHead(nn.Module):
    """Features (B, C, T) -> a verdict on every place, `scale` frames averaged before it looks.

    Args:
        channels: C.
        width: channels inside.
        scale: see above.
        seed: of the random projection that mixes the channels.
        learns: whether that projection learns, too. On a network's features it must not: it would
            look only at what already tells them apart.
    """

    mixer: Tensor

    def __init__(
        self, channels: int, width: int, scale: int, seed: int, *, learns: bool = False
    ) -> None:
        super().__init__()
        self.scale = scale
        generator = torch.Generator().manual_seed(seed)
        mixer = torch.randn(width, channels, 1, generator=generator) / channels**0.5
        if learns:
            self.mixer = nn.Parameter(mixer)
        else:
            self.register_buffer("mixer", mixer)
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


class MelDiscriminator(nn.Module):
    """Log-mels of several resolutions, each frame normalised -> one verdict for each of them and
    each time scale.

    Args:
        resolutions: (FFT and window, hop, bands up to 12 kHz, of which those below HIGHEST are
            seen) of each, in samples.
        width: channels of a head.
        scales: frames that are averaged.
    """

    def __init__(
        self,
        resolutions: Sequence[tuple[int, int, int]],
        width: int = 96,
        scales: Sequence[int] = (1, 4, 8),
    ) -> None:
        super().__init__()
        self.resolutions, self.scales = tuple(resolutions), len(scales)
        heads = []
        for index, (size, _, bands) in enumerate(self.resolutions):
            filters = htk_filters(size, bands)
            tops = torch.linspace(0, SAMPLE_RATE / 2, size // 2 + 1)[:, None]
            filters = filters[:, torch.where(filters > 0, tops, 0.0).amax(0) <= HIGHEST]
            self.register_buffer(f"window{index}", torch.hann_window(size), persistent=False)
            self.register_buffer(f"filters{index}", filters, persistent=False)
            heads += [
                FeatureHead(filters.shape[1], width, scale, seed=7 * index + scale, learns=True)
                for scale in scales
            ]
        self.heads = nn.ModuleList(heads)

    def forward(self, x: Tensor) -> list[Verdict]:
        """x (B, 1, N)."""
        verdicts: list[Verdict] = []
        with torch.autocast(x.device.type, enabled=False):
            for index, (size, hop, _) in enumerate(self.resolutions):
                window = self.get_buffer(f"window{index}")
                power = magnitude(x[:, 0].float(), size, hop, window).square()
                mel = (power.mT @ self.get_buffer(f"filters{index}") + FLOOR).log()
                normal = F.layer_norm(mel, mel.shape[-1:]).mT
                first = index * self.scales
                verdicts += [head(normal) for head in self.heads[first : first + self.scales]]
        return verdicts
