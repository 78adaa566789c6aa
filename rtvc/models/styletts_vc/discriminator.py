"""Real or converted: one verdict a speaker."""

import torch
from torch import Tensor, nn

from rtvc.models.styletts_vc.blocks import SLOPE
from rtvc.models.styletts_vc.norms import SpectralNormConv2d
from rtvc.models.styletts_vc.style_encoder import check_mel, spectrogram_trunk

SPEAKERS = 108
"""Speakers of the VCTK corpus that the authors trained on."""


class Discriminator(nn.Module):
    """Judges a mel spectrogram as speech of a given speaker; for training alone. 13,835,180
    parameters.

    Source: StyleTTS-VC, section III-A (discriminator, after StarGAN v2).
    """

    def __init__(self, width: int = 64, speakers: int = SPEAKERS, widest: int = 512) -> None:
        super().__init__()
        trunk, channels = spectrogram_trunk(width, widest)
        verdict = SpectralNormConv2d(channels, speakers, 1)
        self.main = nn.Sequential(*trunk, nn.LeakyReLU(SLOPE), nn.AdaptiveAvgPool2d(1), verdict)

    def forward(self, mel: Tensor, speaker: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Judges a batch.

        Args:
            mel: (B, 1, 80, T) at 80 Hz.
            speaker: (B,) int64, whose speech it claims to be.

        Returns:
            Logit of being real (B,), and what every layer made of the input, for feature matching.
        """
        check_mel(mel)
        features, x = [], mel
        for layer in self.main:
            x = layer(x)
            features.append(x)
        return x.flatten(1)[torch.arange(len(speaker), device=x.device), speaker], features
