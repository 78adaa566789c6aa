"""Content, F0, energy and style -> waveform: the two decoders of StyleTTS 2."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtvc.models.styletts2.generator import Generator, HiFiGANGenerator, ISTFTNetGenerator
from rtvc.models.styletts2.source import Draws
from rtvc.models.styletts_vc.blocks import AdainResBlk1d
from rtvc.models.styletts_vc.norms import WeightNormConv1d

F0_SMOOTHING = (1, 3, 7)
ENERGY_SMOOTHING = (1, 3, 7, 15)
"""Widths in frames of the moving averages that training draws from, so that a decoder does not lean
on detail that predicted curves lack."""


def smooth_randomly(curve: Tensor, widths: tuple[int, ...]) -> Tensor:
    """curve (B, T) -> its moving average over a width drawn from `widths`, zeros beyond the
    ends."""
    width = widths[int(torch.randint(len(widths), ()))]
    return F.avg_pool1d(curve[:, None], width, 1, width // 2)[:, 0]


class Decoder(nn.Module):
    """AdaIN blocks at 40 Hz, one at 80 Hz, then a generator.

    Source: StyleTTS 2, section 3.2.1 and appendix (decoder).

    Args:
        generator: takes `generator_channels` channels at 80 Hz.
    """

    def __init__(
        self,
        generator: Generator,
        content_dim: int = 512,
        style_dim: int = 128,
        width: int = 1024,
        residual_dim: int = 64,
        generator_channels: int = 512,
    ) -> None:
        super().__init__()
        joined = width + residual_dim + 2
        self.decode = nn.ModuleList(AdainResBlk1d(joined, width, style_dim) for _ in range(3))
        self.decode.append(AdainResBlk1d(joined, generator_channels, style_dim, upsample=True))
        self.encode = AdainResBlk1d(content_dim + 2, width, style_dim)
        self.F0_conv = WeightNormConv1d(1, 1, 3, stride=2, padding=1)
        self.N_conv = WeightNormConv1d(1, 1, 3, stride=2, padding=1)
        self.asr_res = nn.Sequential(WeightNormConv1d(content_dim, residual_dim, 1))
        self.generator = generator

    def features(self, content: Tensor, f0: Tensor, energy: Tensor, style: Tensor) -> Tensor:
        """What the generator turns into sound: shapes as in `forward` -> (B, generator_channels, 2
        T)."""
        pitch = self.F0_conv(f0[:, None].to(content.dtype))
        loudness = self.N_conv(energy[:, None].to(content.dtype))
        x: Tensor = self.encode(torch.cat([content, pitch, loudness], 1), style)
        residual = self.asr_res(content)
        for block in self.decode:
            x = block(torch.cat([x, residual, pitch, loudness], 1), style)
        return x

    def forward(
        self, content: Tensor, f0: Tensor, energy: Tensor, style: Tensor, draws: Draws | None = None
    ) -> Tensor:
        """Decodes a batch of utterances.

        Args:
            content: (B, C, T) at 40 Hz.
            f0: (B, 2 T) Hz at 80 Hz, 0 where unvoiced.
            energy: (B, 2 T) log norm at 80 Hz.
            style: (B, S) acoustic style.
            draws: randomness of the harmonic source; torch's global generator if None.

        Returns:
            Waveform, (B, 1, N = 600 T) at 24 kHz.
        """
        frames = 2 * content.shape[-1]
        if f0.shape[-1] != frames or energy.shape[-1] != frames:
            raise ValueError(
                f"content of {content.shape[-1]} frames came with F0 of {f0.shape[-1]} and energy"
                f" of {energy.shape[-1]}: both must have twice the frames, {frames}"
            )
        if self.training:
            f0, energy = (
                smooth_randomly(f0, F0_SMOOTHING),
                smooth_randomly(energy, ENERGY_SMOOTHING),
            )
        x = self.features(content, f0, energy, style)
        y: Tensor = self.generator(x, style, f0, Draws() if draws is None else draws)
        return y


class PublishedDecoder(Decoder):
    """A decoder with a generator of its kind.

    Args:
        style_dim: length of the style vector.
        content_dim: channels of the content.
        width: channels at 40 Hz.
        generator: settings of the generator that differ from the published ones.
    """

    kind: ClassVar[type[ISTFTNetGenerator | HiFiGANGenerator]]

    def __init__(
        self, style_dim: int = 128, content_dim: int = 512, width: int = 1024, **generator: Any
    ) -> None:
        super().__init__(
            self.kind(style_dim, **generator),
            content_dim,
            style_dim,
            width,
            generator_channels=generator.get("channels", 512),
        )


class ISTFTNetDecoder(PublishedDecoder):
    """With the iSTFTNet generator: 53,276,190 parameters as published, also Kokoro's."""

    kind = ISTFTNetGenerator


class HiFiGANDecoder(PublishedDecoder):
    """With the HiFi-GAN generator: 54,289,492 parameters in the LibriTTS settings."""

    kind = HiFiGANGenerator
