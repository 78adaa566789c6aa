"""The network of style diffusion: a transformer that tells style from noise, given a text's
encoding."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtvc.models.styletts_vc.norms import AdaLayerNorm


class Attention(nn.Module):
    """Multi-head scaled dot products and the projection behind them."""

    def __init__(self, features: int, heads: int, head_features: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_out = nn.Linear(heads * head_features, features)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """query, key, value (B, L, heads * head_features) -> (B, L, features)."""
        split = [x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (query, key, value)]
        attended: Tensor = self.to_out(
            F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        )
        return attended


class StyleAttention(nn.Module):
    """Self-attention behind norms that the reference's style scales and shifts, or plain ones
    without a reference."""

    def __init__(
        self, features: int, heads: int, head_features: int, style_dim: int | None
    ) -> None:
        super().__init__()

        def norm() -> nn.Module:
            return (
                nn.LayerNorm(features) if style_dim is None else AdaLayerNorm(style_dim, features)
            )

        inner = heads * head_features
        self.norm, self.norm_context = norm(), norm()
        self.to_q = nn.Linear(features, inner, bias=False)
        self.to_kv = nn.Linear(features, inner * 2, bias=False)
        self.attention = Attention(features, heads, head_features)

    def forward(self, x: Tensor, style: Tensor | None) -> Tensor:
        """x (B, L, features), style (B, S) -> (B, L, features)."""
        condition = () if style is None else (style,)
        key, value = self.to_kv(self.norm_context(x, *condition)).chunk(2, -1)
        attended: Tensor = self.attention(self.to_q(self.norm(x, *condition)), key, value)
        return attended


class Block(nn.Module):
    """Attention and a feed-forward layer, each with a skip."""

    def __init__(
        self, features: int, heads: int, head_features: int, multiplier: int, style_dim: int | None
    ) -> None:
        super().__init__()
        self.attention = StyleAttention(features, heads, head_features, style_dim)
        self.feed_forward = nn.Sequential(
            nn.Linear(features, features * multiplier),
            nn.GELU(),
            nn.Linear(features * multiplier, features),
        )

    def forward(self, x: Tensor, style: Tensor | None) -> Tensor:
        """x (B, L, features), style (B, S) -> (B, L, features)."""
        x = x + self.attention(x, style)
        return torch.add(x, self.feed_forward(x))


class FourierFeatures(nn.Module):
    """A number, and sines and cosines of it at learned frequencies."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(features // 2))

    def forward(self, x: Tensor) -> Tensor:
        """x (B,) -> (B, features + 1)."""
        angle = 2 * math.pi * x[:, None] * self.weights
        return torch.cat([x[:, None], angle.sin(), angle.cos()], -1)


class FixedEmbedding(nn.Module):
    """What stands for a text's encoding when it is left out: one learned vector a position."""

    def __init__(self, longest: int, features: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(longest, features)

    def forward(self, like: Tensor) -> Tensor:
        """like (B, L, features) -> (B, L, features)."""
        if like.shape[1] > self.embedding.num_embeddings:
            raise ValueError(
                f"expected a text of at most {self.embedding.num_embeddings} tokens, got"
                f" {like.shape[1]}: split it"
            )
        return self.embedding.weight[: like.shape[1]].expand(len(like), -1, -1)


class ToChannels(nn.Module):
    """(B, L, C) -> (B, C, L)."""

    def forward(self, x: Tensor) -> Tensor:
        """x (B, L, C) -> (B, C, L)."""
        return x.mT


class StyleDenoiser(nn.Module):
    """Predicts the clean pair of styles from a noisy one.

    Source: StyleTTS 2, section 3.2.2 and appendix (style diffusion denoiser).

    Args:
        channels: of the styles to sample, acoustic and prosodic together.
        text_features: of the text's encoding (PL-BERT's).
        style_dim: of the reference's styles, None for a model of a single speaker.
        longest: tokens in a text.
    """

    def __init__(
        self,
        channels: int = 256,
        text_features: int = 768,
        style_dim: int | None = 256,
        layers: int = 3,
        heads: int = 8,
        head_features: int = 64,
        multiplier: int = 2,
        longest: int = 512,
    ) -> None:
        super().__init__()
        features, self.channels = channels + text_features, channels
        self.blocks = nn.ModuleList(
            Block(features, heads, head_features, multiplier, style_dim) for _ in range(layers)
        )
        self.to_out = nn.Sequential(ToChannels(), nn.Conv1d(features, channels, 1))
        self.to_mapping = nn.Sequential(
            nn.Linear(features, features), nn.GELU(), nn.Linear(features, features), nn.GELU()
        )
        self.to_time = nn.Sequential(
            nn.Sequential(FourierFeatures(channels), nn.Linear(channels + 1, features)), nn.GELU()
        )
        if style_dim is not None:
            self.to_features = nn.Sequential(nn.Linear(style_dim, features), nn.GELU())
        self.style_dim = style_dim
        self.fixed_embedding = FixedEmbedding(longest, text_features)

    def run(self, x: Tensor, time: Tensor, text: Tensor, style: Tensor | None) -> Tensor:
        """One pass without guidance; shapes as in `forward`."""
        condition = self.to_time(time)
        if style is not None:
            condition = condition + self.to_features(style)
        mapping = self.to_mapping(condition)[:, None]
        x = torch.cat([x.expand(-1, text.shape[1], -1), text], -1)
        for block in self.blocks:
            x = block(x + mapping, style)
        styles: Tensor = self.to_out(x.mean(1, keepdim=True)).mT
        return styles

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        text: Tensor,
        style: Tensor | None = None,
        guidance: float = 1.0,
        hide_text: Tensor | None = None,
    ) -> Tensor:
        """Denoises a batch.

        Args:
            x: (B, 1, channels), scaled noisy styles.
            time: (B,), a quarter of the log noise level.
            text: (B, L, text_features).
            style: (B, style_dim) of the reference; required where the model has a `style_dim`.
            guidance: 1 listens to the text as trained, more listens harder (classifier-free
                guidance).
            hide_text: (B,) bool, rows whose text training leaves out.

        Returns:
            (B, 1, channels).
        """
        if (style is None) != (self.style_dim is None):
            expected, given = ("a", "none") if style is None else ("no", "one")
            raise ValueError(f"expected {expected} reference style with this model, got {given}")
        without = self.fixed_embedding(text)
        if hide_text is not None:
            text = torch.where(hide_text[:, None, None], without, text)
        y = self.run(x, time, text, style)
        return y if guidance == 1.0 else torch.lerp(self.run(x, time, without, style), y, guidance)
