"""Mel spectrogram to waveform: the HiFi-GAN that makes StyleTTS-VC's mel decoder heard, and a
stand-in without weights."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtvc.audio.mel import FLOOR, HOP, LOG_MEAN, LOG_STD, N_FFT, WINDOW, filter_bank
from rtvc.models.styletts_vc.norms import WeightNormConv1d, WeightNormConvTranspose1d

SLOPE = 0.1


class ResBlock(nn.Module):
    """Dilated residual block, one pair of convolutions a dilation (HiFi-GAN's type 1)."""

    def __init__(self, channels: int, kernel: int, dilations: Sequence[int]) -> None:
        super().__init__()

        def conv(dilation: int) -> nn.Module:
            return WeightNormConv1d(
                channels, channels, kernel, dilation=dilation, padding=dilation * (kernel - 1) // 2
            )

        self.convs1 = nn.ModuleList(conv(dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(conv(1) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, T) -> y (B, C, T)."""
        for conv1, conv2 in zip(self.convs1, self.convs2, strict=True):
            x = x + conv2(F.leaky_relu(conv1(F.leaky_relu(x, SLOPE)), SLOPE))
        return x


class Vocoder(nn.Module):
    """HiFi-GAN V1 at 24 kHz, hop 300, in the authors' mel scale (log mel, plus 4, by 4).

    Source: Kong et al. 2020, "HiFi-GAN"; the settings are those of the vocoder that the authors
    publish.
    """

    def __init__(
        self,
        bands: int = 80,
        channels: int = 512,
        rates: Sequence[int] = (10, 5, 3, 2),
        kernels: Sequence[int] = (20, 10, 6, 4),
        block_kernels: Sequence[int] = (3, 7, 11),
        block_dilations: Sequence[Sequence[int]] = ((1, 3, 5), (1, 3, 5), (1, 3, 5)),
    ) -> None:
        super().__init__()
        self.hop, self.blocks_a_stage = math.prod(rates), len(block_kernels)
        self.conv_pre = WeightNormConv1d(bands, channels, 7, padding=3)
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        for rate, kernel in zip(rates, kernels, strict=True):
            cut = kernel - rate
            self.ups.append(
                WeightNormConvTranspose1d(
                    channels,
                    channels // 2,
                    kernel,
                    rate,
                    padding=(cut + 1) // 2,
                    output_padding=cut % 2,
                )
            )
            channels //= 2
            for size, dilations in zip(block_kernels, block_dilations, strict=True):
                self.resblocks.append(ResBlock(channels, size, dilations))
        self.conv_post = WeightNormConv1d(channels, 1, 7, padding=3)

    def forward(self, mel: Tensor) -> Tensor:
        """mel (B, 80, T) at 80 Hz -> waveform (B, 1, N = 300 T) at 24 kHz."""
        x = self.conv_pre(mel)
        for index, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, SLOPE))
            first = index * self.blocks_a_stage
            x = torch.stack(
                [block(x) for block in self.resblocks[first : first + self.blocks_a_stage]]
            ).mean(0)
        # torch's default slope before the last convolution, as in the published code.
        return torch.tanh(self.conv_post(F.leaky_relu(x)))


class GriffinLim(nn.Module):
    """Waveform of a mel spectrogram by estimating its phases: needs no weights, sounds hollow.

    Source: Griffin and Lim 1984; Perraudin et al. 2013 (momentum).
    """

    inverse: Tensor
    window: Tensor

    def __init__(self, rounds: int = 32, momentum: float = 0.99) -> None:
        super().__init__()
        self.rounds, self.momentum = rounds, momentum
        self.register_buffer(
            "inverse", torch.linalg.pinv(filter_bank(torch.float64)).float(), persistent=False
        )
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)

    def forward(self, mel: Tensor) -> Tensor:
        """mel (B, 80, T) at 80 Hz -> waveform (B, 1, N = 300 T) at 24 kHz."""
        samples = mel.shape[-1] * HOP
        power = (mel * LOG_STD + LOG_MEAN).exp() - FLOOR
        # One more frame: a centred transform ends on the last sample.
        magnitude = F.pad((self.inverse.T @ power).clamp(min=0).sqrt(), (0, 1))
        spectrum = torch.polar(
            magnitude,
            2
            * math.pi
            * torch.rand(magnitude.shape, generator=torch.Generator().manual_seed(0)).to(mel),
        )
        before = torch.zeros_like(spectrum)
        for _ in range(self.rounds):
            wave = torch.istft(spectrum, N_FFT, HOP, WINDOW, self.window, length=samples)
            consistent = torch.stft(wave, N_FFT, HOP, WINDOW, self.window, return_complex=True)
            towards = consistent + self.momentum * (consistent - before)
            spectrum, before = magnitude * towards / towards.abs().clamp(min=1e-9), consistent
        return torch.istft(spectrum, N_FFT, HOP, WINDOW, self.window, length=samples)[:, None]
