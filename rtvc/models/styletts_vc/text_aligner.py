"""A small speech recogniser whose attention tells which frame speaks which phoneme."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rtvc.models.styletts_vc.attention import AttendingDecoder, ConvNorm
from rtvc.models.styletts_vc.blocks import LinearNorm
from rtvc.models.styletts_vc.text_encoder import TOKENS


class Alignment(NamedTuple):
    """What the aligner says of speech and its text.

    Attributes:
        ctc: (B, T / 2, tokens) logits of each frame, for CTC.
        logits: (B, L + 1, tokens) of each token and of the end.
        scores: (B, L + 1, T / 2) over frames, before softmax; -inf where masked.
    """

    ctc: Tensor
    logits: Tensor
    scores: Tensor

    @property
    def attention(self) -> Tensor:
        """Which frames speak each token, (B, L + 1, T / 2); every row sums to one."""
        return self.scores.softmax(-1)


def dct_matrix(bands: int, coefficients: int) -> Tensor:
    """Orthonormal DCT-II as a (bands, coefficients) matrix."""
    angle = (
        math.pi
        / bands
        * (torch.arange(bands, dtype=torch.float64)[:, None] + 0.5)
        * torch.arange(coefficients)
    )
    matrix = math.sqrt(2 / bands) * angle.cos()
    matrix[:, 0] /= math.sqrt(2)
    return matrix.float()


class MFCC(nn.Module):
    """Mel-frequency cepstral coefficients of a log mel spectrogram."""

    dct_mat: Tensor

    def __init__(self, bands: int = 80, coefficients: int = 40) -> None:
        super().__init__()
        self.register_buffer("dct_mat", dct_matrix(bands, coefficients))

    def forward(self, mel: Tensor) -> Tensor:
        """mel (B, 80, T) -> (B, 40, T)."""
        return self.dct_mat.T @ mel


class DilatedBlocks(nn.Module):
    """Three residual blocks of dilation 1, 3 and 9."""

    def __init__(self, channels: int, dropout: float = 0.2) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                ConvNorm(channels, channels, 3, dilation=dilation),
                nn.ReLU(),
                nn.GroupNorm(8, channels),
                nn.Dropout(dropout),
                ConvNorm(channels, channels, 3),
                nn.ReLU(),
                nn.Dropout(dropout),
            )
            for dilation in (1, 3, 9)
        )

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, T) -> y (B, C, T)."""
        for block in self.blocks:
            x = x + block(x)
        return x


class TextAligner(nn.Module):
    """CTC and attention over convolutional features of MFCCs. 7,865,252 parameters.

    Source: StyleTTS-VC, section III-A (text aligner).
    """

    def __init__(
        self,
        bands: int = 80,
        channels: int = 256,
        tokens: int = TOKENS,
        layers: int = 6,
        embedding_dim: int = 512,
    ) -> None:
        super().__init__()
        self.to_mfcc = MFCC(bands, bands // 2)
        self.init_cnn = ConvNorm(bands // 2, channels, 7, stride=2)
        self.cnns = nn.Sequential(
            *(
                nn.Sequential(DilatedBlocks(channels), nn.GroupNorm(1, channels))
                for _ in range(layers)
            )
        )
        self.projection = ConvNorm(channels, channels // 2)
        self.ctc_linear = nn.Sequential(
            LinearNorm(channels // 2, channels), nn.ReLU(), LinearNorm(channels, tokens)
        )
        self.asr_s2s = AttendingDecoder(channels // 2, embedding_dim, tokens)

    def features(self, mel: Tensor) -> Tensor:
        """mel (B, 80, T) at 80 Hz -> (B, C / 2, ceil(T / 2)) at 40 Hz."""
        features: Tensor = self.projection(self.cnns(self.init_cnn(self.to_mfcc(mel))))
        return features

    def forward(self, mel: Tensor, mask: Tensor | None, tokens: Tensor) -> Alignment:
        """Aligns a batch of utterances with their texts.

        Args:
            mel: (B, 80, T) at 80 Hz, log scale.
            mask: (B, ceil(T / 2)) bool, true behind a row's end; None if all rows are whole.
            tokens: (B, L) int64.
        """
        x = self.features(mel).mT
        return Alignment(self.ctc_linear(x), *self.asr_s2s(x, mask, tokens))
