"""Distance between spectra of waveforms, blind where a recording holds nothing."""

import torch
from torch import Tensor, nn

from rtvc.audio.mel import SAMPLE_RATE

RESOLUTIONS = ((256, 64), (512, 128), (1024, 256), (2048, 512))
"""FFT size (and window) and hop in samples."""
QUIET = 3e-4
"""Magnitude below which differences fade out of the logarithm."""


class BandedSTFT(nn.Module):
    """L1 of log-magnitudes plus half the spectral convergence of each row, averaged over
    resolutions (Yamamoto et al. 2020)."""

    def __init__(self) -> None:
        super().__init__()
        for size, _ in RESOLUTIONS:
            self.register_buffer(f"window{size}", torch.hann_window(size), persistent=False)

    def forward(self, predicted: Tensor, true: Tensor, cutoff: Tensor) -> Tensor:
        """predicted and true (B, N) at 24 kHz, cutoff (B,) in Hz above which nothing counts -> a
        scalar."""
        with torch.autocast(predicted.device.type, enabled=False):
            predicted, true = predicted.float(), true.float()
            total = predicted.new_zeros(())
            for size, hop in RESOLUTIONS:
                window = self.get_buffer(f"window{size}")
                x, y = (magnitude(wave, size, hop, window) for wave in (predicted, true))
                mask = within(cutoff, size)
                logs = ((x + QUIET).log() - (y + QUIET).log()).abs() * mask
                total = total + logs.sum() / (mask.sum() * x.shape[-1]).clamp_min(1)
                off = ((x - y) * mask).square().sum((1, 2)).clamp_min(1e-12).sqrt()
                total = total + 0.5 * (off / ((y * mask).square().sum((1, 2)).sqrt() + 1e-2)).mean()
            return total / len(RESOLUTIONS)


def magnitude(wave: Tensor, size: int, hop: int, window: Tensor) -> Tensor:
    """wave (B, N) -> magnitudes (B, size / 2 + 1, T), never 0 so that the square root has a
    gradient."""
    spectrum = torch.view_as_real(torch.stft(wave, size, hop, window=window, return_complex=True))
    return spectrum.square().sum(-1).clamp_min(1e-9).sqrt()


def within(cutoff: Tensor, size: int) -> Tensor:
    """cutoff (B,) in Hz -> mask (B, size / 2 + 1, 1) of the bins below it."""
    frequencies = torch.arange(size // 2 + 1, device=cutoff.device) * SAMPLE_RATE / size
    return (frequencies < cutoff[:, None]).float()[..., None]
