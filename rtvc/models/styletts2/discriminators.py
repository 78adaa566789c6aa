"""Real or generated: judges of waveforms by period and by spectrogram, for adversarial training.

Both give a list of `Verdict`s, one a sub-discriminator.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtvc.models.styletts_vc.norms import WeightNormConv2d

SLOPE = 0.1


class Verdict(NamedTuple):
    """What one sub-discriminator says of a batch of waveforms.

    Attributes:
        logits: (B, K), of being real, one for each place it looks at.
        features: what each of its layers made of the input, for feature matching.
    """

    logits: Tensor
    features: list[Tensor]


def judge(x: Tensor, layers: nn.ModuleList, last: nn.Module) -> Verdict:
    """Runs convolutions with leaky ReLUs between them over x (B, 1, H, W)."""
    features = []
    for layer in layers:
        x = F.leaky_relu(layer(x), SLOPE)
        features.append(x)
    x = last(x)
    return Verdict(x.flatten(1), [*features, x])


class PeriodDiscriminator(nn.Module):
    """Looks at every `period`-th sample."""

    def __init__(self, period: int, channels: Sequence[int] = (32, 128, 512, 1024, 1024)) -> None:
        super().__init__()
        self.period = period
        strides = [3] * (len(channels) - 1) + [1]
        self.convs = nn.ModuleList(
            WeightNormConv2d(before, after, (5, 1), (stride, 1), (2, 0))
            for before, after, stride in zip([1, *channels], channels, strides, strict=False)
        )
        self.conv_post = WeightNormConv2d(channels[-1], 1, (3, 1), padding=(1, 0))

    def forward(self, x: Tensor) -> Verdict:
        """x (B, 1, N)."""
        x = F.pad(x, (0, -x.shape[-1] % self.period), mode="reflect")
        return judge(x.unflatten(-1, (-1, self.period)), self.convs, self.conv_post)


class MultiPeriodDiscriminator(nn.Module):
    """Periods of 2, 3, 5, 7 and 11 samples.

    Source: Kong et al. 2020, "HiFi-GAN"; StyleTTS 2, section 3.2.1.
    """

    def __init__(self, periods: Sequence[int] = (2, 3, 5, 7, 11)) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(PeriodDiscriminator(period) for period in periods)

    def forward(self, x: Tensor) -> list[Verdict]:
        """x (B, 1, N) -> one verdict a period."""
        return [discriminator(x) for discriminator in self.discriminators]


QUIET = 1e-7
"""Added to the power of each bin before a root of it is taken, whose slope at zero would be
infinite."""


class SpectrogramDiscriminator(nn.Module):
    """Looks at a magnitude spectrogram of one resolution, raised to `power`: below 1 its quiet
    parts count for more."""

    window: Tensor

    def __init__(
        self, n_fft: int, hop: int, length: int, channels: int = 32, power: float = 1.0
    ) -> None:
        super().__init__()
        self.n_fft, self.hop, self.power = n_fft, hop, power
        self.discriminators = nn.ModuleList(
            [
                WeightNormConv2d(1, channels, (3, 9), padding=(1, 4)),
                *(WeightNormConv2d(channels, channels, (3, 9), (1, 2), (1, 4)) for _ in range(3)),
                WeightNormConv2d(channels, channels, (3, 3), padding=(1, 1)),
            ]
        )
        self.out = WeightNormConv2d(channels, 1, 3, padding=1)
        self.register_buffer("window", torch.hann_window(length), persistent=False)

    def forward(self, x: Tensor) -> Verdict:
        """x (B, 1, N)."""
        window = self.window.float()
        spectrum = torch.stft(
            x[:, 0].float(), self.n_fft, self.hop, len(window), window, return_complex=True
        )
        energy = torch.view_as_real(spectrum).square().sum(-1)
        seen = spectrum.abs() if self.power == 1 else (energy + QUIET) ** (self.power / 2)
        return judge(seen.mT[:, None].to(x.dtype), self.discriminators, self.out)


class MultiResolutionDiscriminator(nn.Module):
    """Spectrograms of three resolutions.

    Source: Jang et al. 2021, "UnivNet"; StyleTTS 2, section 3.2.1.

    Args:
        resolutions: (n_fft, hop, window) of each, in samples.
        channels: of each.
        power: see `SpectrogramDiscriminator`.
    """

    def __init__(
        self,
        resolutions: Sequence[tuple[int, int, int]] = (
            (1024, 120, 600),
            (2048, 240, 1200),
            (512, 50, 240),
        ),
        channels: int = 32,
        power: float = 1.0,
    ) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(
            SpectrogramDiscriminator(*resolution, channels, power) for resolution in resolutions
        )

    def forward(self, x: Tensor) -> list[Verdict]:
        """x (B, 1, N) -> one verdict a resolution."""
        return [discriminator(x) for discriminator in self.discriminators]
