"""The attending decoder of the text aligner: which frame speaks which phoneme."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtvc.models.styletts_vc.blocks import LinearNorm

START, UNKNOWN = 1, 3
"""Tokens of the aligner's alphabet: start of sequence, and what stands for a hidden token."""

HIDDEN_TOKENS = 0.1
"""Share of the text that training hides from the decoder, so that it listens."""


class ConvNorm(nn.Module):
    """`nn.Conv1d` with Xavier initialisation, one level deeper, as the checkpoints name it."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(
            inputs, outputs, kernel, stride, dilation * (kernel - 1) // 2, dilation, bias=bias
        )
        nn.init.xavier_uniform_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, T) -> y (B, C', T / stride)."""
        y: Tensor = self.conv(x)
        return y


class LocationLayer(nn.Module):
    """Where attention has been so far, as features of each frame."""

    def __init__(self, filters: int, kernel: int, dim: int) -> None:
        super().__init__()
        self.location_conv = ConvNorm(2, filters, kernel, bias=False)
        self.location_dense = LinearNorm(filters, dim, bias=False, gain="tanh")

    def forward(self, weights: Tensor) -> Tensor:
        """weights (B, 2, T): the last and the summed ones -> (B, T, D)."""
        features: Tensor = self.location_dense(self.location_conv(weights).mT)
        return features


class LocationSensitiveAttention(nn.Module):
    """Additive attention that knows where it has been.

    Source: Chorowski et al. 2015; Tacotron 2.
    """

    def __init__(self, dim: int, filters: int = 32, kernel: int = 63) -> None:
        super().__init__()
        self.query_layer = LinearNorm(dim, dim, bias=False, gain="tanh")
        self.memory_layer = LinearNorm(dim, dim, bias=False, gain="tanh")
        self.v = LinearNorm(dim, 1, bias=False)
        self.location_layer = LocationLayer(filters, kernel, dim)

    def forward(
        self, query: Tensor, keys: Tensor, memory: Tensor, weights: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One step of the decoder.

        Args:
            query: (B, D), the decoder's state.
            keys: (B, T, D), `memory` through `memory_layer`.
            memory: (B, T, D).
            weights: (B, 2, T), the last step's and the sum of all before.
            mask: (B, T) bool, true behind a row's end.

        Returns:
            Context (B, D), weights (B, T), and the scores (B, T) that the weights are the softmax
            of.
        """
        score = self.v(
            torch.tanh(self.query_layer(query)[:, None] + self.location_layer(weights) + keys)
        )[..., 0]
        if mask is not None:
            score = score.masked_fill(mask, -math.inf)
        attention = score.softmax(-1)
        return torch.bmm(attention[:, None], memory)[:, 0], attention, score


class Attended(NamedTuple):
    """What the decoder says of a text it has listened for.

    Attributes:
        logits: (B, L + 1, tokens), of each token and of the end.
        scores: (B, L + 1, T) over frames, of which attention is the softmax; -inf where masked.
    """

    logits: Tensor
    scores: Tensor


class AttendingDecoder(nn.Module):
    """Predicts a text token by token, under teacher forcing, while attending to speech.

    Source: StyleTTS-VC, section III-A (text aligner, after Tacotron 2).
    """

    def __init__(self, dim: int, embedding_dim: int, tokens: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, embedding_dim)
        bound = math.sqrt(6 / dim)
        nn.init.uniform_(self.embedding.weight, -bound, bound)
        self.project_to_n_symbols = nn.Linear(dim, tokens)
        self.attention_layer = LocationSensitiveAttention(dim)
        self.decoder_rnn = nn.LSTMCell(dim + embedding_dim, dim)
        self.project_to_hidden = nn.Sequential(LinearNorm(dim * 2, dim), nn.Tanh())

    def forward(self, memory: Tensor, mask: Tensor | None, tokens: Tensor) -> Attended:
        """memory (B, T, D), mask (B, T) true behind a row's end, tokens (B, L) int64 ->
        `Attended`."""
        if self.training:
            hidden_ones = torch.rand(tokens.shape, device=tokens.device) < HIDDEN_TOKENS
            tokens = tokens.masked_fill(hidden_ones, UNKNOWN)
        inputs = self.embedding(F.pad(tokens, (1, 0), value=START))
        keys = self.attention_layer.memory_layer(memory)
        hidden = cell = context = memory.new_zeros(len(memory), memory.shape[-1])
        last = total = memory.new_zeros(memory.shape[:2])
        outputs, scores = [], []
        for embedded in inputs.unbind(1):
            hidden, cell = self.decoder_rnn(torch.cat([embedded, context], -1), (hidden, cell))
            context, last, score = self.attention_layer(
                hidden, keys, memory, torch.stack([last, total], 1), mask
            )
            total = total + last
            outputs.append(self.project_to_hidden(torch.cat([hidden, context], -1)))
            scores.append(score)
        states = F.dropout(torch.stack(outputs, 1), 0.5, self.training)
        return Attended(self.project_to_n_symbols(states), torch.stack(scores, 1))
