"""Monotonic alignment search: the best path through an attention matrix on which every token gets
at least one frame.

Source: Kim et al. 2020, "Glow-TTS", algorithm 1, as the transferable monotonic aligner of StyleTTS
uses it.
"""

import numpy as np
import torch
from torch import Tensor


def monotonic_path(scores: Tensor, tokens: Tensor, frames: Tensor) -> Tensor:
    """The path of largest summed score from the first token at the first frame to the last token at
    the last frame.

    Args:
        scores: (B, L, T), finite inside a row's lengths.
        tokens: (B,) tokens of each row, at least 1.
        frames: (B,) frames of each row. A row with fewer frames than tokens gets a path over its
            first tokens.

    Returns:
        (B, L, T) of 0 and 1, one 1 in each column inside a row's frames.
    """
    value = scores.detach().float().cpu().numpy()
    batch, length, total = value.shape
    ends = np.minimum(tokens.cpu().numpy(), frames.cpu().numpy()) - 1
    spans = frames.cpu().numpy()
    best = np.full((batch, length), -np.inf, np.float32)
    best[:, 0] = value[:, 0, 0]
    stepped = np.zeros((total, batch, length), bool)
    for t in range(1, total):
        before = np.full_like(best, -np.inf)
        before[:, 1:] = best[:, :-1]
        stepped[t] = before > best
        best = np.where(stepped[t], before, best) + value[:, :, t]
    path = np.zeros((batch, length, total), np.float32)
    rows = np.arange(batch)
    for t in range(total - 1, -1, -1):
        inside = t < spans
        path[rows[inside], ends[inside], t] = 1
        # A row may not stay on a token when only as many frames as tokens are left.
        move = inside & (ends > 0) & (stepped[t, rows, ends] | (ends >= t))
        ends = ends - move
    return torch.from_numpy(path).to(scores.device)
