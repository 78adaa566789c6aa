"""The components of both papers at the sizes of a configuration; the defaults are the published
ones."""

from collections.abc import Iterable

from pydantic import Field
from torch import nn

from rtvc.models.styletts_vc.decoder import Decoder
from rtvc.models.styletts_vc.discriminator import Discriminator
from rtvc.models.styletts_vc.mel_encoder import LinearProjection, MelEncoder
from rtvc.models.styletts_vc.pitch_extractor import PitchExtractor
from rtvc.models.styletts_vc.style_encoder import StyleEncoder
from rtvc.models.styletts_vc.text_aligner import TextAligner
from rtvc.models.styletts_vc.text_encoder import TOKENS, TextEncoder
from rtvc.train.config import Section


class ModelConfig(Section):
    """Sizes of StyleTTS-VC."""

    hidden_dim: int = Field(default=512, ge=8, le=8192)
    """Channels of content."""
    style_dim: int = Field(default=128, ge=2, le=8192)
    residual_dim: int = Field(default=64, ge=2, le=8192)
    """Channels of the decoder's F0, energy and content side paths."""
    width: int = Field(default=64, ge=4, le=2048)
    """First channels of the style encoder and the discriminator."""
    widest: int = Field(default=512, ge=4, le=8192)
    """Their last channels."""
    text_layers: int = Field(default=3, ge=1, le=64)
    tokens: int = Field(default=TOKENS, ge=1, le=16384)
    aligner_channels: int = Field(default=256, ge=8, le=8192)
    aligner_layers: int = Field(default=6, ge=1, le=64)
    aligner_embedding: int = Field(default=512, ge=8, le=8192)
    pitch_width: int = Field(default=64, ge=1, le=2048)
    """First channels of the pitch extractor."""
    dropout: float = Field(default=0.2, ge=0, lt=1)


class OpposedWeights(Section):
    """Factors that every stage with a discriminator of mels has: the authors' configuration, but
    for feature matching, which they sum over the batch."""

    mel: float = 5.0
    adversarial: float = 1.0
    features: float = 0.2
    """Feature matching; the paper's factor, for a mean over the batch."""
    discriminator: float = 1.0
    r1: float = 1.0


def text_encoder(config: ModelConfig) -> TextEncoder:
    """Tokens -> content."""
    return TextEncoder(
        config.hidden_dim, depth=config.text_layers, tokens=config.tokens, dropout=config.dropout
    )


def style_encoder(config: ModelConfig) -> StyleEncoder:
    """Mel -> style."""
    return StyleEncoder(config.width, config.style_dim, config.widest)


def decoder(config: ModelConfig) -> Decoder:
    """Content, F0, energy, style -> mel."""
    return Decoder(config.hidden_dim, config.style_dim, config.residual_dim)


def discriminator(config: ModelConfig, speakers: int) -> Discriminator:
    """Mel and speaker -> verdict."""
    return Discriminator(config.width, speakers, config.widest)


def mel_encoder(config: ModelConfig) -> MelEncoder:
    """Mel -> content."""
    return MelEncoder(channels=config.hidden_dim)


def linear_projection(config: ModelConfig) -> LinearProjection:
    """Content -> phoneme logits."""
    return LinearProjection(config.hidden_dim, config.tokens)


def text_aligner(config: ModelConfig) -> TextAligner:
    """Mel and tokens -> alignment."""
    return TextAligner(
        channels=config.aligner_channels,
        tokens=config.tokens,
        layers=config.aligner_layers,
        embedding_dim=config.aligner_embedding,
    )


def pitch_extractor(config: ModelConfig) -> PitchExtractor:
    """Mel -> F0."""
    return PitchExtractor(config.pitch_width)


def differentiable(modules: Iterable[nn.Module]) -> None:
    """Puts the LSTMs of frozen modules in training mode, without which cuDNN cannot send gradients
    through them.

    Those of the pitch extractor and the aligner have no dropout: their output does not change.
    """
    for module in modules:
        for child in module.modules():
            if isinstance(child, nn.LSTM) and not child.dropout:
                child.train()
