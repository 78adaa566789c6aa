"""Real or made, judged on patches of log-mels: discriminators that a CPU can train against."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rtvc.audio.mel_distance import highest, htk_filters, log_mel
from rtvc.models.styletts2.discriminators import Verdict, judge
from rtvc.models.styletts_vc.norms import WeightNormConv2d

HIGHEST = 7_500.0
"""Hz below which all recordings hold sound."""
SPREAD = 3.0
"""About the standard deviation of log-mels of speech."""


class MelDiscriminator(nn.Module):
    """Looks at patches of a log-mel, whose level is taken out: a few bands and frames at a time, so
    it is the texture that it judges (PatchGAN: Isola et al. 2017, section 3.2.2).

    A mel has a quarter of the bins of a spectrum, and strides halve what is left of both axes: it
    tells what was made within hundreds of updates of a tenth of a second.

    Args:
        size: samples of FFT and window.
        hop: samples between frames.
        bands: up to 12 kHz; those below HIGHEST are seen.
        channels: of the first layers.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, size: int, hop: int, bands: int, channels: int) -> None:
        super().__init__()
        self.size, self.hop = size, hop
        filters = htk_filters(size, bands)
        seen = filters[:, highest(filters) <= HIGHEST]
        self.register_buffer("window", torch.hann_window(size), persistent=False)
        self.register_buffer("filters", seen, persistent=False)
        c = channels
        self.convs = nn.ModuleList(
            [
                WeightNormConv2d(1, c, (5, 5), (2, 1), (2, 2)),
                WeightNormConv2d(c, c, (5, 5), (2, 2), (2, 2)),
                WeightNormConv2d(c, 2 * c, (3, 3), (2, 2), (1, 1)),
                WeightNormConv2d(2 * c, 2 * c, (3, 3), padding=(1, 1)),
            ]
        )
        self.out = WeightNormConv2d(2 * c, 1, (3, 3), padding=(1, 1))

    def forward(self, x: Tensor) -> Verdict:
        """x (B, 1, N)."""
        with torch.autocast(x.device.type, enabled=False):
            mel = log_mel(x[:, 0].float(), self.size, self.hop, self.window, self.filters)
            mel = (mel.mT - mel.mean((1, 2), keepdim=True)) / SPREAD
        return judge(mel[:, None].to(x.dtype), self.convs, self.out)


class MelDiscriminators(nn.Module):
    """Log-mels of several resolutions: (size, hop, bands) of each, see `MelDiscriminator`."""

    def __init__(
        self, resolutions: Sequence[tuple[int, int, int]] = (), channels: int = 16
    ) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(
            MelDiscriminator(*resolution, channels) for resolution in resolutions
        )

    def forward(self, x: Tensor) -> list[Verdict]:
        """x (B, 1, N) -> one verdict a resolution."""
        return [discriminator(x) for discriminator in self.discriminators]
