"""The two style encoders (StyleTTS 2, section 3.1): timbre from mel, prosody from mel, pitch and
voicing."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtvc.audio.energy import energy as energy_of
from rtvc.audio.mel import LOG_STD
from rtvc.models.streaming.analysis import audible_bands
from rtvc.models.streaming.pitch import F0_CENTRE, F0_SCALE, SEMITONE

STYLE = 128
"""Numbers in either style vector."""
SPEECH_DEPTH = 5.0
"""Nepers of power (10 / ln 10 dB each, 22 dB in all) below a reference's loudest frame within which
its frames are speech and not pauses."""
QUIETEST = -2.0
"""Least log-mel that the style encoders are shown. Silence is (log FLOOR - LOG_MEAN) / LOG_STD =
-1.9; what the shift to a common level brings below that is silence too."""
REGISTER = (2.0, 9.0)
"""Mean log F0 that a voice may ask for, 7 Hz to 8 kHz: no voice is near either end, and what lies
far beyond has no F0."""


class Reference(NamedTuple):
    """What the style encoders are shown of recordings.

    Attributes:
        acoustic: (B, M, T) log-mel.
        prosodic: (B, M + 2, T) log-mel, pitch, voicing.
        mask: (B, T) bool, whether a frame is speech.
    """

    acoustic: Tensor
    prosodic: Tensor
    mask: Tensor


def reference_of(mel: Tensor, melody: Tensor) -> Reference:
    """mel (B, M', T) and `PitchNet`'s output (B, 2, T) -> what the style encoders are shown."""
    energy = energy_of(mel)[:, 0]
    mask = energy > energy.amax(1, keepdim=True) - SPEECH_DEPTH
    level = (energy * mask).sum(1) / mask.sum(1).clamp(min=1)
    # The style must not depend on how loud the reference was recorded: log-mels are shifted to
    # a common level.
    shifted = mel - level[:, None, None] / LOG_STD
    level_mel = shifted.clamp(min=QUIETEST)[:, : audible_bands()]
    log_f0, voicing = melody.unbind(1)
    register = (log_f0 - F0_CENTRE) * F0_SCALE * voicing
    voiced = torch.stack([register, voicing], 1).to(mel.dtype)
    return Reference(level_mel, torch.cat([level_mel, voiced], 1), mask)


class StyleEncoder(nn.Module):
    """(B, C, T) features of a recording -> (B, 128) style.

    Unlike the rest of the streaming model it sees the whole reference: convolutions, then attentive
    statistics pooling (Okabe et al. 2018) over the frames that `mask` (B, T) marks as speech.
    """

    def __init__(self, inputs: int, hidden: int, layers: int = 4) -> None:
        super().__init__()
        self.inputs = inputs
        self.first = nn.Conv1d(inputs, hidden, 5, padding=2)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(layers))
        self.convs = nn.ModuleList(
            nn.Conv1d(hidden, hidden, 5, padding=2 * 2**i, dilation=2**i) for i in range(layers)
        )
        self.attention = nn.Sequential(nn.Linear(hidden, 64), nn.Tanh(), nn.Linear(64, hidden))
        self.out = nn.Linear(2 * hidden, STYLE)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, C, T), mask (B, T) bool -> (B, 128)."""
        return self.with_frames(x, mask)[0]

    def with_frames(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and the frames (B, T, hidden) that it was pooled from."""
        x = F.gelu(self.first(x[:, : self.inputs])) * mask[:, None]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = x + F.gelu(conv(norm(x.mT).mT)) * mask[:, None]
        precise = torch.promote_types(x.dtype, torch.float32)
        frames = x.mT.to(precise)
        weight = torch.softmax(
            self.attention(x.mT).to(precise).masked_fill(~mask[..., None], -1e4), 1
        )
        mean = (weight * frames).sum(1)
        deviation = ((weight * frames.square()).sum(1) - mean.square()).clamp(min=1e-4).sqrt()
        style: Tensor = self.out(torch.cat([mean, deviation], -1))
        return style, frames


class ProsodyHead(nn.Module):
    """Prosodic style (B, 128) -> mean and deviation of log F0, and deviation of log energy, (B,
    3)."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(STYLE, 3)

    def forward(self, style: Tensor) -> Tensor:
        """style (B, 128) -> (B, 3); deviations are positive."""
        mean, spreads = self.out(style).split([1, 2], -1)
        return torch.cat([mean + F0_CENTRE, F.softplus(spreads)], -1)

    def controls(self, style: Tensor, pitch: float, prosody: float) -> Tensor:
        """style (B, 128) -> (B, `Prosody.TARGETS`), see there.

        Args:
            style: prosodic.
            pitch: semitones added to the pitch.
            prosody: 0 keeps the source's register and range, 1 takes the voice's.
        """
        register, spreads = self(style).split([1, 2], -1)
        controls = style.new_tensor([pitch * SEMITONE, prosody]).expand(len(style), 2)
        return torch.cat([register.clamp(*REGISTER), spreads, controls], 1)
