"""Rows of different lengths in one batch, each computed as if it were alone.

Convolutions must see zeros behind a row's end, as they would at the end of a tensor, and instance norm must take its
statistics from the row's own frames. Both are put into a network from outside, so that the models stay the authors'.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtvc.models.styletts_vc.norms import AdaIN1d

EPSILON = 1e-5
"""What `torch.nn.functional.instance_norm` adds to the variance."""


class Rows:
    """The rows' lengths while a batch runs, at whatever frame rate a layer works.

    A tensor of `frames` frames, where the padded batch counts `total`, has `frames // total` times the rate, and
    `frames % total` frames more at a row's end (the generator's spectra have one).
    """

    def __init__(self) -> None:
        self._lengths: Tensor | None = None
        self._total = 0
        self._masks: dict[tuple[int, torch.dtype], Tensor] = {}

    def set(self, lengths: Tensor | None) -> None:
        """lengths (B,) int64 of the next batch at its base rate. None, or rows of equal length, switch all masking off."""
        uneven = lengths is not None and bool((lengths != lengths.max()).any())
        self._lengths, self._masks = lengths if uneven else None, {}
        self._total = int(lengths.max()) if lengths is not None and uneven else 0

    @property
    def even(self) -> bool:
        """Whether nothing needs a mask."""
        return self._lengths is None

    def counts(self, frames: int) -> Tensor:
        """Frames of each row, (B,), where the padded batch has `frames`."""
        assert self._lengths is not None
        return self._lengths * (frames // self._total) + frames % self._total

    def mask(self, frames: int, like: Tensor) -> Tensor:
        """1 within the rows and 0 behind their ends, (B, 1, frames), in the dtype of `like`."""
        key = (frames, like.dtype)
        if key not in self._masks:
            inside = torch.arange(frames, device=like.device) < self.counts(frames)[:, None]
            self._masks[key] = inside[:, None].to(like.dtype)
        return self._masks[key]

    def zeroed(self, x: Tensor) -> Tensor:
        """x (B, C, T) with zeros behind the rows' ends."""
        return x if self.even else x * self.mask(x.shape[-1], x)


class RaggedAdaIN(AdaIN1d):
    """AdaIN over each row's own frames; what stands behind a row's end is undefined."""

    def __init__(self, norm: AdaIN1d, rows: Rows) -> None:
        nn.Module.__init__(self)
        self.fc, self.rows = norm.fc, rows

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """x (B, C, T), style (B, S) -> y (B, C, T)."""
        if self.rows.even:
            return super().forward(x, style)
        mask = self.rows.mask(x.shape[-1], x)
        wide = torch.promote_types(x.dtype, torch.float32)
        share = 1 / self.rows.counts(x.shape[-1]).to(wide)[:, None, None]
        mean = (x * mask).sum(-1, keepdim=True, dtype=wide) * share
        centred = (x - mean.to(x.dtype)) * mask
        variance = centred.square().sum(-1, keepdim=True, dtype=wide) * share
        scale, shift = self.fc(style)[..., None].chunk(2, 1)
        return torch.addcmul(shift, centred, (1 + scale) * torch.rsqrt(variance + EPSILON).to(x.dtype))


def make_ragged(network: nn.Module, rows: Rows) -> None:
    """Makes every convolution and AdaIN inside `network` respect `rows`, in place; names of parameters stay."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, AdaIN1d):
                setattr(parent, name, RaggedAdaIN(child, rows))
            elif isinstance(child, nn.Conv1d | nn.ConvTranspose1d) and child.kernel_size != (1,):
                child.register_forward_pre_hook(lambda _, inputs: (rows.zeroed(inputs[0]), *inputs[1:]))


def pad_rows(tensors: list[Tensor]) -> Tensor:
    """(…, T_i) -> (B, …, T), zeros behind the shorter ones."""
    longest = max(tensor.shape[-1] for tensor in tensors)
    return torch.stack([F.pad(tensor, (0, longest - tensor.shape[-1])) for tensor in tensors])
