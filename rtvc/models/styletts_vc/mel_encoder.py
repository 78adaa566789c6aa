"""Mel spectrogram to content: what makes voice conversion need no text."""

from torch import Tensor, nn

from rtvc.models.styletts_vc.blocks import ResBlk1d
from rtvc.models.styletts_vc.norms import WeightNormConv1d
from rtvc.models.styletts_vc.text_encoder import TOKENS


class MelEncoder(nn.Module):
    """Speech to the text encoder's aligned output, at half the mel frame rate. 4,529,408
    parameters.

    Source: StyleTTS-VC, section III-B (knowledge transfer).
    """

    def __init__(self, bands: int = 80, channels: int = 512) -> None:
        super().__init__()
        quarter, half = channels // 4, channels // 2
        self.conv_mel = nn.Sequential(
            WeightNormConv1d(bands, quarter, 7, padding=3),
            ResBlk1d(quarter, half),
            ResBlk1d(half, half),
            ResBlk1d(half, channels),
            ResBlk1d(channels, channels, downsample=True),
            ResBlk1d(channels, channels),
        )

    def forward(self, mel: Tensor) -> Tensor:
        """mel (B, 80, T) at 80 Hz, log scale -> content (B, C, ceil(T / 2)) at 40 Hz."""
        content: Tensor = self.conv_mel(mel)
        return content


class LinearProjection(nn.Conv1d):
    """Content to phoneme logits, one column a frame: the phoneme loss of the mel encoder. 91,314
    parameters."""

    def __init__(self, channels: int = 512, tokens: int = TOKENS) -> None:
        super().__init__(channels, tokens, 1)

    def forward(self, x: Tensor) -> Tensor:
        """content (B, C, T) -> logits (B, tokens, T)."""
        return super().forward(x)
