"""The building blocks that the models of both papers share."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtvc.models.styletts_vc.norms import (
    AdaIN1d,
    SpectralNormConv2d,
    WeightNormConv1d,
    WeightNormConvTranspose1d,
)

SLOPE = 0.2
"""Negative slope of every leaky ReLU in StyleTTS-VC."""


def halve(x: Tensor) -> Tensor:
    """Mean of neighbouring frames, x (B, C, T) -> (B, C, ceil(T / 2)); the last frame of an odd
    number is doubled."""
    if x.shape[-1] % 2:
        x = torch.cat([x, x[..., -1:]], -1)
    return F.avg_pool1d(x, 2)


def halve2d(x: Tensor) -> Tensor:
    """Mean of squares of 2 x 2, x (B, C, H, T) -> (B, C, H / 2, ceil(T / 2)); an odd last frame is
    doubled."""
    if x.shape[-1] % 2:
        x = torch.cat([x, x[..., -1:]], -1)
    return F.avg_pool2d(x, 2)


class LinearNorm(nn.Module):
    """`nn.Linear` with Xavier initialisation, one level deeper, as the checkpoints name it."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True, gain: str = "linear") -> None:
        super().__init__()
        self.linear_layer = nn.Linear(inputs, outputs, bias=bias)
        nn.init.xavier_uniform_(self.linear_layer.weight, gain=nn.init.calculate_gain(gain))  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """x (..., inputs) -> y (..., outputs)."""
        y: Tensor = self.linear_layer(x)
        return y


class ResBlk1d(nn.Module):
    """Residual block of two convolutions behind instance norm, at the same or half the frame rate.

    Source: StyleTTS-VC, appendix (mel encoder, decoder).
    """

    def __init__(
        self, inputs: int, outputs: int, downsample: bool = False, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.downsample, self.dropout = downsample, dropout
        self.conv1 = WeightNormConv1d(inputs, inputs, 3, padding=1)
        self.conv2 = WeightNormConv1d(inputs, outputs, 3, padding=1)
        self.norm1 = nn.InstanceNorm1d(inputs, affine=True)
        self.norm2 = nn.InstanceNorm1d(inputs, affine=True)
        self.conv1x1 = (
            WeightNormConv1d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()
        )
        self.pool = (
            WeightNormConv1d(inputs, inputs, 3, stride=2, padding=1, groups=inputs)
            if downsample
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, T) -> y (B, C', T or ceil(T / 2))."""
        skip = self.conv1x1(x)
        skip = halve(skip) if self.downsample else skip
        y = F.dropout(F.leaky_relu(self.norm1(x), SLOPE), self.dropout, self.training)
        y = self.pool(self.conv1(y))
        y = F.dropout(F.leaky_relu(self.norm2(y), SLOPE), self.dropout, self.training)
        y = self.conv2(y)
        return torch.add(skip, y) / math.sqrt(2)


class AdainResBlk1d(nn.Module):
    """Residual block of two convolutions behind AdaIN, at the same or twice the frame rate.

    Source: StyleTTS-VC, appendix (decoder); StyleTTS 2, appendix (decoder, prosody predictor).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        style_dim: int,
        upsample: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.upsample, self.dropout = upsample, dropout
        self.conv1 = WeightNormConv1d(inputs, outputs, 3, padding=1)
        self.conv2 = WeightNormConv1d(outputs, outputs, 3, padding=1)
        self.norm1 = AdaIN1d(style_dim, inputs)
        self.norm2 = AdaIN1d(style_dim, outputs)
        self.conv1x1 = (
            WeightNormConv1d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()
        )
        self.pool = (
            WeightNormConvTranspose1d(
                inputs, inputs, 3, stride=2, padding=1, output_padding=1, groups=inputs
            )
            if upsample
            else nn.Identity()
        )

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """x (B, C, T), style (B, S) -> y (B, C', T or 2 T)."""
        skip = self.conv1x1(x.repeat_interleave(2, -1) if self.upsample else x)
        y = self.pool(self.norm1(x, style, "leaky", slope=SLOPE))
        y = self.conv1(F.dropout(y, self.dropout, self.training))
        y = self.norm2(y, style, "leaky", slope=SLOPE)
        y = self.conv2(F.dropout(y, self.dropout, self.training))
        return torch.add(skip, y) / math.sqrt(2)


class LearnedHalving(nn.Module):
    """A depth-wise convolution of stride 2 x 2; its own level only because the checkpoints name it
    so."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = SpectralNormConv2d(channels, channels, 3, stride=2, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, T) -> y (B, C, H / 2, ceil(T / 2))."""
        y: Tensor = self.conv(x)
        return y


class ResBlk2d(nn.Module):
    """Residual block over a spectrogram, both axes halved; used by the style encoder and the
    discriminator."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.downsample_res = LearnedHalving(inputs)
        self.conv1 = SpectralNormConv2d(inputs, inputs, 3, padding=1)
        self.conv2 = SpectralNormConv2d(inputs, outputs, 3, padding=1)
        self.conv1x1 = (
            SpectralNormConv2d(inputs, outputs, 1, bias=False)
            if inputs != outputs
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, T) -> y (B, C', H / 2, ceil(T / 2))."""
        y = self.downsample_res(self.conv1(F.leaky_relu(x, SLOPE)))
        y = self.conv2(F.leaky_relu(y, SLOPE))
        return torch.add(halve2d(self.conv1x1(x)), y) / math.sqrt(2)
