"""The components of StyleTTS 2 at the sizes of a configuration, and small helpers of its second
stage."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from rtvc.models.styletts2.decoder import Decoder
from rtvc.models.styletts2.denoiser import StyleDenoiser
from rtvc.models.styletts2.diffusion import StyleDiffusion
from rtvc.models.styletts2.generator import HiFiGANGenerator, ISTFTNetGenerator
from rtvc.models.styletts2.prosody import ProsodyPredictor
from rtvc.models.styletts_vc.style_encoder import StyleEncoder
from rtvc.teacher.plbert import PLBert
from rtvc.train.material.components import ModelConfig

Rate = Annotated[int, Field(ge=1, le=64)]


class ProsodyModelConfig(ModelConfig):
    """Sizes of StyleTTS 2, LibriTTS settings with the iSTFTNet decoder."""

    generator: Literal["istftnet", "hifigan"] = "istftnet"
    decoder_width: int = Field(default=1024, ge=8, le=8192)
    generator_channels: int = Field(default=512, ge=8, le=8192)
    upsample_rates: Annotated[tuple[Rate, ...], Field(min_length=1, max_length=12)] = (10, 6)
    """Their product times the iSTFT's hop (5 for iSTFTNet) is 300."""
    block_kernels: tuple[Rate, ...] = (3, 7, 11)
    predictor_layers: int = Field(default=3, ge=1, le=64)
    longest_token: int = Field(default=50, ge=2, le=4096)
    """Frames of 25 ms that a phoneme can last."""
    bert_width: int = Field(default=128, ge=4, le=8192)
    bert_hidden: int = Field(default=768, ge=8, le=8192)
    bert_heads: int = Field(default=12, ge=1, le=128)
    bert_inner: int = Field(default=2048, ge=8, le=32768)
    bert_depth: int = Field(default=12, ge=1, le=64)
    diffusion_layers: int = Field(default=3, ge=1, le=64)
    diffusion_heads: int = Field(default=8, ge=1, le=128)
    diffusion_head_features: int = Field(default=64, ge=2, le=1024)


def waveform_decoder(config: ProsodyModelConfig) -> Decoder:
    """Content, F0, energy, style -> waveform."""
    kernels, dilations = (
        tuple(2 * rate for rate in config.upsample_rates),
        ((1, 3, 5),) * len(config.block_kernels),
    )
    kind: type[ISTFTNetGenerator | HiFiGANGenerator] = (
        ISTFTNetGenerator if config.generator == "istftnet" else HiFiGANGenerator
    )
    generator = kind(
        config.style_dim,
        config.generator_channels,
        config.upsample_rates,
        kernels,
        config.block_kernels,
        dilations,
    )
    return Decoder(
        generator,
        config.hidden_dim,
        config.style_dim,
        config.decoder_width,
        config.residual_dim,
        config.generator_channels,
    )


def predictor(config: ProsodyModelConfig) -> ProsodyPredictor:
    """Text and prosodic style -> durations, F0 and energy."""
    return ProsodyPredictor(
        config.hidden_dim,
        config.style_dim,
        config.predictor_layers,
        config.longest_token,
        config.dropout,
    )


def plbert(config: ProsodyModelConfig) -> PLBert:
    """Tokens -> their encoding by the language model."""
    return PLBert(
        config.tokens,
        config.bert_width,
        config.bert_hidden,
        config.bert_heads,
        config.bert_inner,
        config.bert_depth,
    )


def style_diffusion(config: ProsodyModelConfig) -> StyleDiffusion:
    """Text and reference styles -> a pair of styles."""
    pair = 2 * config.style_dim
    heads, features = config.diffusion_heads, config.diffusion_head_features
    return StyleDiffusion(
        StyleDenoiser(pair, config.bert_hidden, pair, config.diffusion_layers, heads, features)
    )


class StyleDeviation(nn.Module):
    """Running mean of the styles' standard deviation, which the diffusion's sampler needs: a buffer
    `mean`, exported with it."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(0.2))

    @torch.no_grad()
    def update(self, styles: Tensor) -> float:
        """styles (B, 2 S) -> their mean standard deviation over channels, also folded into
        `mean`."""
        deviation = styles.float().std(-1).mean()
        self.mean.lerp_(deviation, 0.01)
        return float(deviation)


def row_styles(encoder: StyleEncoder, mel: Tensor, frames: Tensor) -> Tensor:
    """Styles (B, S) of whole utterances: row by row, since the encoder averages over time. mel (B,
    80, T), frames (B,)."""
    return torch.cat(
        [
            encoder(row[None, None, :, : int(length)])
            for row, length in zip(mel, frames, strict=True)
        ]
    )
