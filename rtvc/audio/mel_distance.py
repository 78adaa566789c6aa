"""Distance between log-mels of waveforms, blind above the band that a recording truly holds."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rtvc.audio.mel import BANDS, NOMINAL_RATE, SAMPLE_RATE

RESOLUTIONS = ((512, 50, 240), (1024, 120, 600), (2048, 240, 1200))
"""FFT size, hop and window in samples (Yamamoto et al. 2020, "Parallel WaveGAN", table 1)."""
FLOOR = 1e-5
"""Added to a band's power before its logarithm is taken."""
EDGE = 0.95
"""Share of a recording's band that is believed; resamplers and codecs roll off above it."""


def band_limit(bandwidth: Tensor, frequencies: Tensor) -> Tensor:
    """bandwidth (B,) in Hz, twice the highest frequency present; frequencies (F,) in Hz -> mask (B,
    F, 1), 1 where it holds sound."""
    full = bandwidth >= SAMPLE_RATE
    believed = frequencies <= EDGE * bandwidth[:, None] / 2
    return (believed | full[:, None]).float()[..., None]


def mel_band_limit(bandwidth: Tensor) -> Tensor:
    """bandwidth (B,) in Hz -> mask (B, BANDS, 1) over the bands of `rtvc.audio.mel`, 1 where a
    whole band holds sound."""
    top = torch.linspace(
        0,
        2595 * math.log10(1 + NOMINAL_RATE / 2 / 700),
        BANDS + 2,
        dtype=torch.float64,
        device=bandwidth.device,
    )
    upper = 700 * (10 ** (top[2:] / 2595) - 1) * SAMPLE_RATE / NOMINAL_RATE
    return band_limit(bandwidth, upper)


def magnitude(wave: Tensor, size: int, hop: int, window: Tensor) -> Tensor:
    """wave (B, N) -> magnitudes (B, size / 2 + 1, T), never 0 so that the gradient of the square
    root stays finite."""
    spectrum = torch.stft(wave, size, hop, len(window), window, return_complex=True)
    return (spectrum.real.square() + spectrum.imag.square()).clamp_min(1e-7).sqrt()


def htk_filters(size: int, bands: int, rate: int = SAMPLE_RATE) -> Tensor:
    """Triangular HTK mel filters without area normalisation, (size / 2 + 1, bands)."""
    top = 2595 * math.log10(1 + rate / 2 / 700)
    corners = 700 * (10 ** (torch.linspace(0, top, bands + 2, dtype=torch.float64) / 2595) - 1)
    bins = torch.linspace(0, rate / 2, size // 2 + 1, dtype=torch.float64)
    slopes = corners - bins[:, None]
    rising, falling = -slopes[:, :-2] / corners.diff()[:-1], slopes[:, 2:] / corners.diff()[1:]
    return torch.minimum(rising, falling).clamp(min=0).float()


def highest(filters: Tensor) -> Tensor:
    """Filters (size / 2 + 1, bands) -> the highest frequency that each passes, (bands,) in Hz."""
    frequencies = torch.linspace(0, SAMPLE_RATE / 2, len(filters), device=filters.device)
    return torch.where(filters > 0, frequencies[:, None], 0.0).amax(0)


def log_mel(wave: Tensor, size: int, hop: int, window: Tensor, filters: Tensor) -> Tensor:
    """wave (B, N) and filters (size / 2 + 1, bands) -> log-power (B, T, bands), in nepers."""
    return (magnitude(wave, size, hop, window).square().mT @ filters + FLOOR).log()


class MultiResolutionMel(nn.Module):
    """Relative L1 distance of normalised log-mels of 128 bands, averaged over resolutions.

    Source: StyleTTS 2, section 3.2.2 (mel reconstruction) and the authors' `losses.py`.
    """

    def __init__(
        self, resolutions: Sequence[tuple[int, int, int]] = RESOLUTIONS, bands: int = 128
    ) -> None:
        super().__init__()
        self.resolutions = tuple(resolutions)
        for index, (size, _, width) in enumerate(self.resolutions):
            self.register_buffer(f"window{index}", torch.hann_window(width), persistent=False)
            self.register_buffer(f"filters{index}", htk_filters(size, bands), persistent=False)

    def forward(self, output: Tensor, target: Tensor, bandwidth: Tensor | None = None) -> Tensor:
        """output and target (B, N) at 24 kHz, bandwidth (B,) in Hz (None: everything counts) -> a
        scalar."""
        output, target = output.float(), target.float()
        total = output.new_zeros(())
        with torch.autocast(output.device.type, enabled=False):
            for index, (size, hop, _) in enumerate(self.resolutions):
                window, filters = (
                    self.get_buffer(f"window{index}"),
                    self.get_buffer(f"filters{index}"),
                )
                x, y = (
                    (log_mel(wave, size, hop, window, filters) + 4) / 4 for wave in (output, target)
                )
                mask = torch.ones_like(x[:, :1])
                if bandwidth is not None:
                    mask = band_limit(bandwidth, highest(filters)).mT
                total = total + ((x - y) * mask).abs().sum() / (y * mask).abs().sum().clamp_min(
                    1e-5
                )
        return total / len(self.resolutions)
