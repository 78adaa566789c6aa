"""Which frames speak which token: the aligner's attention, soft and as a monotonic path.

Source: StyleTTS, section III-A (transferable monotonic aligner); StyleTTS-VC, `train_first.py`.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from rtvc.models.styletts_vc.text_aligner import TextAligner
from rtvc.models.styletts_vc.text_encoder import padding_mask
from rtvc.train.material.monotonic import monotonic_path

OUTSIDE = -1e4
"""Score of what lies behind a row's end."""


class Aligned(NamedTuple):
    """What the aligner says of a batch.

    Attributes:
        soft: (B, L, T) attention, 0 behind a row's end.
        hard: (B, L, T) monotonic path of 0 and 1.
        ctc: (B, T, tokens) logits.
        logits: (B, L + 1, tokens) of the attending decoder.
        frames: (B,) frames of each row at 40 Hz.
    """

    soft: Tensor
    hard: Tensor
    ctc: Tensor
    logits: Tensor
    frames: Tensor


def align(
    aligner: TextAligner,
    mel: Tensor,
    frames: Tensor,
    tokens: Tensor,
    lengths: Tensor,
    over: Literal["frames", "tokens"] = "frames",
) -> Aligned:
    """Aligns a batch of utterances with their texts.

    Args:
        aligner: trained by the `aligner` stage.
        mel: (B, 80, T) at 80 Hz, T even.
        frames: (B,) mel frames of each row.
        tokens: (B, L).
        lengths: (B,) tokens of each row.
        over: what attention is normalised over: a token's frames, as the authors do, or a frame's
            tokens.
    """
    half = frames // 2
    behind = padding_mask(half, (mel.shape[-1] + 1) // 2)
    output = aligner(mel, behind, tokens)
    inside = ~(behind[:, None] | padding_mask(lengths, tokens.shape[1])[..., None])
    # Step k + 1 of the decoder reads token k: its attention is the token's.
    scores = output.scores[:, 1:].float().masked_fill(~inside, OUTSIDE)
    soft = scores.softmax(-1 if over == "frames" else 1) * inside
    with torch.no_grad():
        hard = monotonic_path(soft, lengths, half)
    return Aligned(soft, hard, output.ctc, output.logits, half)


def cut(starts: Tensor, frames: int, *rows: Tensor) -> list[Tensor]:
    """Pieces of (B, …, T): `frames` frames of each row from its start (B,) -> (B, …, frames)."""
    index = starts.to(rows[0].device)[:, None] + torch.arange(frames, device=rows[0].device)
    return [
        row.gather(
            -1, index.view(len(row), *[1] * (row.ndim - 2), frames).expand(*row.shape[:-1], frames)
        )
        for row in rows
    ]
