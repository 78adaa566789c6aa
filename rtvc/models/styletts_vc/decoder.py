"""Content, F0, energy and style -> mel spectrogram."""

import torch
from torch import Tensor, nn

from rtvc.models.styletts_vc.blocks import AdainResBlk1d, ResBlk1d
from rtvc.models.styletts_vc.norms import WeightNormConv1d


def curve_branch(width: int) -> nn.Sequential:
    """F0 or energy at 80 Hz -> one channel at 40 Hz without register or loudness: (B, 1, T) -> (B,
    1, ceil(T / 2))."""
    return nn.Sequential(
        ResBlk1d(1, width, downsample=True),
        WeightNormConv1d(width, 1, 1),
        nn.InstanceNorm1d(1, affine=True),
    )


class Decoder(nn.Module):
    """AdaIN blocks that see content, F0 and energy again at each step of 40 Hz. 32,719,026
    parameters.

    Source: StyleTTS-VC, section III-A (decoder).
    """

    def __init__(
        self, content_dim: int = 512, style_dim: int = 128, residual_dim: int = 64, bands: int = 80
    ) -> None:
        super().__init__()
        width = content_dim * 2
        joined = width + residual_dim + 2
        self.decode = nn.ModuleList(
            [
                AdainResBlk1d(joined, width, style_dim),
                AdainResBlk1d(joined, width, style_dim),
                AdainResBlk1d(joined, content_dim, style_dim, upsample=True),
                AdainResBlk1d(content_dim, content_dim, style_dim),
                AdainResBlk1d(content_dim, content_dim, style_dim),
            ]
        )
        self.encode = nn.Sequential(ResBlk1d(content_dim + 2, width), ResBlk1d(width, width))
        self.F0_conv = curve_branch(residual_dim)
        self.N_conv = curve_branch(residual_dim)
        self.asr_res = nn.Sequential(
            WeightNormConv1d(content_dim, residual_dim, 1),
            nn.InstanceNorm1d(residual_dim, affine=True),
        )
        self.to_out = nn.Sequential(WeightNormConv1d(content_dim, bands, 1))

    def forward(self, content: Tensor, f0: Tensor, energy: Tensor, style: Tensor) -> Tensor:
        """Decodes a batch of utterances.

        Args:
            content: (B, C, T) at 40 Hz.
            f0: (B, 2 T) Hz at 80 Hz.
            energy: (B, 2 T) log norm at 80 Hz.
            style: (B, S).

        Returns:
            Mel spectrogram, (B, 80, 2 T) at 80 Hz.
        """
        pitch, loudness = self.F0_conv(f0[:, None]), self.N_conv(energy[:, None])
        frames = content.shape[-1]
        if pitch.shape[-1] != frames or loudness.shape[-1] != frames:
            raise ValueError(
                f"content of {frames} frames came with F0 of {f0.shape[-1]} and energy of"
                f" {energy.shape[-1]}: both must have twice the frames, {2 * frames}"
            )
        x = self.encode(torch.cat([content, pitch, loudness], 1))
        residual = self.asr_res(content)
        for block in self.decode:
            # At 40 Hz only: the block that doubles the rate is the last to see them.
            x = block(
                torch.cat([x, residual, pitch, loudness], 1) if x.shape[-1] == frames else x, style
            )
        mel: Tensor = self.to_out(x)
        return mel
