"""Text and style -> durations, F0 and energy."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtvc.models.styletts_vc.blocks import AdainResBlk1d, LinearNorm
from rtvc.models.styletts_vc.norms import AdaLayerNorm
from rtvc.models.styletts_vc.text_encoder import run_packed


class DurationEncoder(nn.Module):
    """BiLSTMs and adaptive layer norms in turn, the style joined to the input of each.

    Source: StyleTTS, appendix (duration predictor); unchanged in StyleTTS 2.
    """

    def __init__(
        self, channels: int = 512, style_dim: int = 128, layers: int = 3, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.lstms = nn.ModuleList()
        for _ in range(layers):
            self.lstms.append(
                nn.LSTM(channels + style_dim, channels // 2, batch_first=True, bidirectional=True)
            )
            self.lstms.append(AdaLayerNorm(style_dim, channels))

    def forward(self, text: Tensor, style: Tensor, lengths: Tensor, mask: Tensor) -> Tensor:
        """text (B, C, L), style (B, S), lengths (B,), mask (B, L) true behind a row's end -> (B, L,
        C + S)."""
        padding = mask[..., None]
        styles = style[:, None].expand(-1, text.shape[-1], -1)
        x = torch.cat([text.mT, styles], -1).masked_fill(padding, 0.0)
        for layer in self.lstms:
            if isinstance(layer, nn.LSTM):
                x = F.dropout(run_packed(layer, x, lengths), self.dropout, self.training)
            else:
                x = torch.cat([layer(x, style), styles], -1).masked_fill(padding, 0.0)
        return x


class ProsodyPredictor(nn.Module):
    """Durations of tokens, then F0 and energy of frames, all from text and prosodic style.

    Source: StyleTTS 2, section 3.2.1 and appendix (prosody predictor).

    Args:
        channels: C, of the text encoding.
        style_dim: S, of the prosodic style.
        layers: of the duration encoder.
        longest: frames that a token can last.
        dropout: within blocks, while training.
    """

    def __init__(
        self,
        channels: int = 512,
        style_dim: int = 128,
        layers: int = 3,
        longest: int = 50,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        half = channels // 2

        def curve() -> nn.ModuleList:
            return nn.ModuleList(
                [
                    AdainResBlk1d(channels, channels, style_dim, dropout=dropout),
                    AdainResBlk1d(channels, half, style_dim, upsample=True, dropout=dropout),
                    AdainResBlk1d(half, half, style_dim, dropout=dropout),
                ]
            )

        self.text_encoder = DurationEncoder(channels, style_dim, layers, dropout)
        self.lstm = nn.LSTM(channels + style_dim, half, batch_first=True, bidirectional=True)
        self.duration_proj = LinearNorm(channels, longest)
        self.shared = nn.LSTM(channels + style_dim, half, batch_first=True, bidirectional=True)
        self.F0, self.N = curve(), curve()
        self.F0_proj = nn.Conv1d(half, 1, 1)
        self.N_proj = nn.Conv1d(half, 1, 1)

    def forward(
        self, text: Tensor, style: Tensor, lengths: Tensor, alignment: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Predicts durations, and spreads the encoding over a known alignment.

        Args:
            text: (B, C, L).
            style: (B, S) prosodic style.
            lengths: (B,) tokens of each row.
            alignment: (B, L, T), which token each 40 Hz frame belongs to.
            mask: (B, L) bool, true behind a row's end.

        Returns:
            Duration logits (B, L, longest), and the encoding (B, C + S, T) for `curves`.
        """
        encoded = self.text_encoder(text, style, lengths, mask)
        return self.durations(encoded, lengths), encoded.mT @ alignment

    def durations(self, encoded: Tensor, lengths: Tensor) -> Tensor:
        """encoded (B, L, C + S) from the duration encoder -> logits (B, L, longest); the sum of
        their sigmoids is the expected duration in 40 Hz frames."""
        x = F.dropout(run_packed(self.lstm, encoded, lengths), 0.5, self.training)
        logits: Tensor = self.duration_proj(x)
        return logits

    def curves(self, encoded: Tensor, style: Tensor) -> tuple[Tensor, Tensor]:
        """encoded (B, C + S, T) at 40 Hz, style (B, S) -> F0 (B, 2 T) in Hz and energy (B, 2 T),
        both at 80 Hz."""
        shared = self.shared(encoded.mT)[0].mT
        f0, energy = shared, shared
        for block in self.F0:
            f0 = block(f0, style)
        for block in self.N:
            energy = block(energy, style)
        return self.F0_proj(f0)[:, 0], self.N_proj(energy)[:, 0]
