"""Phoneme tokens to content, the representation that the mel encoder learns to reach from
speech."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rtvc.models.styletts_vc.blocks import SLOPE
from rtvc.models.styletts_vc.norms import ChannelNorm, WeightNormConv1d

TOKENS = 178
"""Size of the authors' phoneme alphabet."""


def run_packed(lstm: nn.LSTM, x: Tensor, lengths: Tensor) -> Tensor:
    """Runs a bidirectional LSTM over rows of different lengths; frames behind a row's end come out
    as zeros.

    Args:
        lstm: built with batch_first=True.
        x: (B, T, C).
        lengths: (B,) frames of each row, int64.
    """
    packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(lstm(packed)[0], batch_first=True, total_length=x.shape[1])[0]


class TextEncoder(nn.Module):
    """Embedding, convolutions and a BiLSTM over phoneme tokens.

    Source: StyleTTS-VC, section III-A (text encoder, from StyleTTS); unchanged in StyleTTS 2.
    """

    def __init__(
        self,
        channels: int = 512,
        kernel: int = 5,
        depth: int = 3,
        tokens: int = TOKENS,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, channels)
        self.cnn = nn.ModuleList(
            nn.Sequential(
                WeightNormConv1d(channels, channels, kernel, padding=(kernel - 1) // 2),
                ChannelNorm(channels),
                nn.LeakyReLU(SLOPE),
                nn.Dropout(dropout),
            )
            for _ in range(depth)
        )
        self.lstm = nn.LSTM(channels, channels // 2, batch_first=True, bidirectional=True)

    def forward(self, tokens: Tensor, lengths: Tensor, mask: Tensor) -> Tensor:
        """Encodes a batch of padded phoneme sequences.

        Args:
            tokens: (B, L) int64.
            lengths: (B,) tokens of each row, int64.
            mask: (B, L) bool, true behind a row's end.

        Returns:
            Content of each token, (B, C, L); zeros behind a row's end.
        """
        padding = mask[:, None]
        x = self.embedding(tokens).mT.masked_fill(padding, 0.0)
        for layer in self.cnn:
            x = layer(x).masked_fill(padding, 0.0)
        return run_packed(self.lstm, x.mT, lengths).mT.masked_fill(padding, 0.0)


def padding_mask(lengths: Tensor, total: int | None = None) -> Tensor:
    """lengths (B,) -> (B, L) bool, true behind each row's end; L is `total`, or the longest row."""
    longest = int(lengths.max()) if total is None else total
    return torch.arange(longest, device=lengths.device) >= lengths[:, None]
