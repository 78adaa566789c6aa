"""A recogniser of our own that looks both ways: it listens to what the decoder says, and is never
part of the model."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtvc.audio.mel import HOP
from rtvc.models.streaming.analysis import Analysis, audible_bands
from rtvc.train.config import Section
from rtvc.train.material.unit_batches import Heads


class RecogniserConfig(Section):
    """Sizes of the recogniser."""

    hidden: int = 320
    kernel: int = 3
    dilations: tuple[int, ...] = (1, 2, 4, 8, 1, 2, 4, 8)
    attention: tuple[int, ...] = (4, 8)
    """Numbers of the blocks that self-attention follows, counted from 1."""
    heads: int = 5


class Block(nn.Module):
    """x + Linear(GELU(Conv(norm(x)))), looking both ways: (B, C, T) -> (B, C, T)."""

    def __init__(self, channels: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.conv = nn.Conv1d(
            channels, channels, kernel, padding=(kernel - 1) * dilation // 2, dilation=dilation
        )
        self.out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        y: Tensor = x + self.out(F.gelu(self.conv(self.norm(x.mT).mT)))
        return y


class SelfAttention(nn.Module):
    """x + Attention(norm(x)) over the whole piece, distances told by a slope a head (ALiBi, both
    ways): (B, C, T) -> (B, C, T)."""

    slopes: Tensor

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.register_buffer("slopes", 2.0 ** -torch.arange(1, heads + 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        q, k, v = self.qkv(self.norm(x.mT)).unflatten(-1, (3, self.heads, -1)).unbind(2)
        frames = torch.arange(x.shape[-1], device=x.device)
        bias = -self.slopes[:, None, None] * (frames[:, None] - frames).abs()
        attended = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), bias.to(q.dtype)
        )
        y: Tensor = x + self.out(attended.transpose(1, 2).flatten(2)).mT
        return y


class Recogniser(nn.Module):
    """wave (B, N) at 24 kHz -> logits of units and phonemes, 80 frames a second, frame t for the
    sample 300 t.

    It hears only what lies below 7.5 kHz, which all recordings hold.
    """

    def __init__(self, config: RecogniserConfig | None = None) -> None:
        super().__init__()
        c = config or RecogniserConfig()
        self.analysis = Analysis()
        self.first = nn.Conv1d(audible_bands(), c.hidden, 5, padding=2)
        blocks: list[nn.Module] = []
        for number, dilation in enumerate(c.dilations, 1):
            blocks.append(Block(c.hidden, c.kernel, dilation))
            if number in c.attention:
                blocks.append(SelfAttention(c.hidden, c.heads))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(c.hidden)
        self.heads = Heads(c.hidden)

    def mel(self, wave: Tensor) -> Tensor:
        """wave (B, N) -> audible log-mel (B, M, N / HOP), frame t centred on sample 300 t; in
        float32, with gradients."""
        with torch.autocast(wave.device.type, enabled=False):
            late = self.analysis.latency
            whole = wave.shape[1] // HOP * HOP
            padded = F.pad(wave[:, None, :whole].float(), (0, late * HOP))
            features, _ = self.analysis(padded, self.analysis.initial(len(wave)))
        mel: Tensor = features[:, : self.first.in_channels, late:]
        return mel

    def layers(self, wave: Tensor) -> list[Tensor]:
        """The output of every block, (B, C, T) each."""
        x = F.gelu(self.first(self.mel(wave)))
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        return outputs

    def logits(self, last: Tensor) -> list[Tensor]:
        """The last block's output (B, C, T) -> logits as of `Heads`."""
        logits: list[Tensor] = self.heads(self.norm(last.mT).mT)
        return logits

    def forward(self, wave: Tensor) -> list[Tensor]:
        """See the class."""
        return self.logits(self.layers(wave)[-1])
