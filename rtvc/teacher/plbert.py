"""PL-BERT, the phoneme-level language model of StyleTTS 2: an ALBERT over phoneme tokens.

Source: Li et al. 2023, "Phoneme-Level BERT for Enhanced Prosody of Text-to-Speech"; Lan et al.
2019, "ALBERT" (one layer, applied twelve times; embeddings narrower than the hidden states).
Parameter names are those of the official checkpoint, without its pooler, which no one reads.
"""

import torch.nn.functional as F
from torch import Tensor, nn

MAX_TOKENS = 512
"""Positions that the model knows, the two boundary tokens included."""


class Embeddings(nn.Module):
    """Token, position and (constant) token type, summed and normalised."""

    def __init__(self, tokens: int, width: int, positions: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(tokens, width)
        self.position_embeddings = nn.Embedding(positions, width)
        self.token_type_embeddings = nn.Embedding(2, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (B, L) int64 -> (B, L, width)."""
        constant = (
            self.position_embeddings.weight[: tokens.shape[1]]
            + self.token_type_embeddings.weight[0]
        )
        x: Tensor = self.LayerNorm(self.word_embeddings(tokens) + constant)
        return x


class Attention(nn.Module):
    """Multi-head self-attention with its residual and norm."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.dense = (nn.Linear(hidden, hidden) for _ in range(4))
        self.LayerNorm = nn.LayerNorm(hidden, eps=1e-12)

    def forward(self, x: Tensor, attended: Tensor | None) -> Tensor:
        """x (B, L, hidden); attended (B, 1, 1, L) bool, true where a token may be looked at -> (B,
        L, hidden)."""
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attended)
        y: Tensor = self.LayerNorm(x + self.dense(mixed.transpose(1, 2).flatten(2)))
        return y


class Layer(nn.Module):
    """Attention, then a two-layer network with the tanh form of GELU, each with residual and norm
    behind."""

    def __init__(self, hidden: int, heads: int, inner: int) -> None:
        super().__init__()
        self.attention = Attention(hidden, heads)
        self.ffn = nn.Linear(hidden, inner)
        self.ffn_output = nn.Linear(inner, hidden)
        self.full_layer_layer_norm = nn.LayerNorm(hidden, eps=1e-12)

    def forward(self, x: Tensor, attended: Tensor | None) -> Tensor:
        """(B, L, hidden) -> (B, L, hidden)."""
        x = self.attention(x, attended)
        y: Tensor = self.full_layer_layer_norm(
            x + self.ffn_output(F.gelu(self.ffn(x), approximate="tanh"))
        )
        return y


class Group(nn.Module):
    """The layers that share a place in the stack: one here. Its own level only because checkpoints
    name it so."""

    def __init__(self, hidden: int, heads: int, inner: int) -> None:
        super().__init__()
        self.albert_layers = nn.ModuleList([Layer(hidden, heads, inner)])


class Encoder(nn.Module):
    """Widens the embeddings and applies the one layer `depth` times."""

    def __init__(self, width: int, hidden: int, heads: int, inner: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        self.embedding_hidden_mapping_in = nn.Linear(width, hidden)
        self.albert_layer_groups = nn.ModuleList([Group(hidden, heads, inner)])

    def forward(self, x: Tensor, attended: Tensor | None) -> Tensor:
        """(B, L, width) -> (B, L, hidden)."""
        x = self.embedding_hidden_mapping_in(x)
        layer = self.albert_layer_groups[0].get_submodule("albert_layers.0")
        for _ in range(self.depth):
            x = layer(x, attended)
        return x


class PLBert(nn.Module):
    """Phoneme tokens to context vectors, at Kokoro's sizes by default."""

    def __init__(
        self,
        tokens: int = 178,
        width: int = 128,
        hidden: int = 768,
        heads: int = 12,
        inner: int = 2048,
        depth: int = 12,
        positions: int = MAX_TOKENS,
    ) -> None:
        super().__init__()
        self.embeddings = Embeddings(tokens, width, positions)
        self.encoder = Encoder(width, hidden, heads, inner, depth)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """tokens (B, L) int64; mask (B, L) bool, true behind a row's end -> (B, L, hidden),
        undefined behind a row's end."""
        attended = None if mask is None else ~mask[:, None, None]
        y: Tensor = self.encoder(self.embeddings(tokens), attended)
        return y
