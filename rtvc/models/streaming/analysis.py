"""What the streaming model hears: log-mel for content and energy, fine low-frequency bins for the
pitch."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rtvc.audio.mel import BANDS, FLOOR, HOP, N_FFT, SAMPLE_RATE, WINDOW, Mel, checked
from rtvc.layers.highpass import HighPass

LOWEST, HIGHEST = 4, 104
"""Bins of the 2048-point spectrum for the pitch network: 47 to 1207 Hz, 11.7 Hz apart."""
PITCH_BINS = HIGHEST - LOWEST
HIGHPASS_HZ, HIGHPASS_ORDER = 70.0, 4
"""What lies below is taken out of all that is heard, sources and references alike: DC and hum are
no part of a voice."""
CUTOFF_HZ = 7_500.0
"""Bands above this are hidden from the encoders: much recorded speech, and most training speech,
has nothing there."""


def audible_bands() -> int:
    """How many of the mel bands lie wholly below the cutoff (the bank's nominal 8 kHz is 12 kHz in
    truth)."""
    top = 2595 * torch.log10(torch.tensor(1 + 8000 / 700))
    corners = 700 * (10 ** (torch.linspace(0, float(top), BANDS + 2) / 2595) - 1) * 1.5
    return int((corners[2:] <= CUTOFF_HZ).sum())


def asymmetric_window(rise: int, fall: int) -> Tensor:
    """A sine-squared rise over `rise` samples and a cosine-squared fall over `fall`, (rise + fall,)
    float64.

    With equal halves it is the periodic Hann window. A short fall hears the newest sound sooner at
    the frequency resolution of the whole length (asymmetric windows for low delay: Mauler and
    Martin 2007, section 3).
    """
    up = torch.sin(math.pi / 2 * torch.arange(rise, dtype=torch.float64) / rise).square()
    down = torch.cos(math.pi / 2 * torch.arange(fall, dtype=torch.float64) / fall).square()
    return torch.cat([up, down])


class AnalysisState(NamedTuple):
    """What the analysis carries."""

    highpass: Tensor
    past: Tensor


class Analysis(Mel):
    """High-passed `Mel` with the log-power of the low bins below it: x (B, 1, N) -> (B, BANDS +
    PITCH_BINS, N / HOP).

    Frame t hears samples up to 300 (t + 1) and peaks `fall` samples before their end, `centre`
    samples after 300 t.
    """

    def __init__(self, fall: int = WINDOW // 2) -> None:
        super().__init__()
        self.window = asymmetric_window(WINDOW - fall, fall).float()
        self.centre = HOP - fall
        self.highpass = HighPass(SAMPLE_RATE, HIGHPASS_HZ, HIGHPASS_ORDER)

    def initial(self, batch: int) -> AnalysisState:  # type: ignore[override]
        """Silence."""
        return AnalysisState(self.highpass.initial(batch), super().initial(batch))

    def forward(self, x: Tensor, state: AnalysisState) -> tuple[Tensor, AnalysisState]:  # type: ignore[override]
        """x (B, 1, N) in [-1, 1] -> y (B, BANDS + PITCH_BINS, N / HOP), one frame late.

        Raises:
            AudioError: x is not (B, 1, N), or N is no multiple of HOP.
        """
        clean, highpass = self.highpass(checked(x), state.highpass)
        y, past = super().forward(clean, state.past)
        return y, AnalysisState(highpass, past)

    def from_windows(self, windows: Tensor) -> Tensor:
        """windows (B, T, WINDOW) -> normalised log-mel over normalised log-power (B, BANDS +
        PITCH_BINS, T)."""
        spectrum = torch.view_as_real(torch.fft.rfft(windows * self.window, N_FFT)).square().sum(-1)
        power = torch.cat([spectrum @ self.filters, spectrum[..., LOWEST:HIGHEST]], -1)
        return ((torch.log(FLOOR + power) + 4) / 4).mT


__all__ = ["BANDS", "PITCH_BINS", "SAMPLE_RATE", "Analysis", "audible_bands"]
