"""Mel spectrogram to one style vector: timbre from the acoustic encoder, register and rhythm from
the prosodic one."""

import copy

from torch import Tensor, nn

from rtvc.models.styletts_vc.blocks import SLOPE, ResBlk2d
from rtvc.models.styletts_vc.norms import SpectralNormConv2d

SHORTEST = 65
"""Mel frames that four halvings leave five of, what the last convolution spans."""


def spectrogram_trunk(width: int, widest: int) -> tuple[list[nn.Module], int]:
    """The convolutions that style encoder and discriminator have in common, and the channels they
    end in.

    They take (B, 1, 80, T) to (B, C, 1, T / 16 - 4).
    """
    layers: list[nn.Module] = [SpectralNormConv2d(1, width, 3, padding=1)]
    for _ in range(4):
        wider = min(width * 2, widest)
        layers.append(ResBlk2d(width, wider))
        width = wider
    return [*layers, nn.LeakyReLU(SLOPE), SpectralNormConv2d(width, width, 5)], width


def check_mel(mel: Tensor) -> None:
    """Refuses what the trunk cannot take, in words; mel (B, 1, 80, T)."""
    if mel.ndim != 4 or mel.shape[1] != 1 or mel.shape[-1] < SHORTEST:
        raise ValueError(
            f"expected a mel of shape (B, 1, 80, T) with T >= {SHORTEST} frames, got"
            f" {tuple(mel.shape)}: give a longer reference"
        )


class StyleEncoder(nn.Module):
    """A reference's style: residual blocks over its spectrogram, averaged over time. 13,845,440
    parameters.

    Source: StyleTTS-VC, section III-A (style encoder); StyleTTS 2 has two, `style_encoder` and
    `predictor_encoder`.
    """

    def __init__(self, width: int = 64, style_dim: int = 128, widest: int = 512) -> None:
        super().__init__()
        trunk, channels = spectrogram_trunk(width, widest)
        self.shared = nn.Sequential(*trunk, nn.AdaptiveAvgPool2d(1), nn.LeakyReLU(SLOPE))
        self.unshared = nn.Linear(channels, style_dim)

    def forward(self, mel: Tensor) -> Tensor:
        """mel (B, 1, 80, T) at 80 Hz -> style (B, S)."""
        check_mel(mel)
        style: Tensor = self.unshared(self.shared(mel).flatten(1))
        return style


def prosodic_from(acoustic: StyleEncoder) -> StyleEncoder:
    """A prosodic encoder to train, starting as a copy of the acoustic one (StyleTTS 2, second
    stage)."""
    return copy.deepcopy(acoustic)
