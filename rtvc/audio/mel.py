"""The mel front end of the StyleTTS family (arXiv 2212.14227, section 3.1 and the authors'
`meldataset.py`).

The authors call torchaudio's `MelSpectrogram(n_mels=80, n_fft=2048, win_length=1200,
hop_length=300)` on 24 kHz audio and leave its `sample_rate` at 16 kHz: the 80 HTK bands are spread
over bins 0..1024 as if those were 0..8000 Hz. In truth they reach 12 kHz. Checkpoints need exactly
that filter bank, so all of rtvc uses it.
"""

import math
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from rtvc.errors import AudioError
from rtvc.layers.contract import Streaming

SAMPLE_RATE = 24_000
"""Of every waveform inside rtvc, in Hz."""
HOP = 300
"""Samples a mel frame: 80 frames a second."""
WINDOW = 4 * HOP
"""Samples under the Hann window: 50 ms."""
N_FFT = 2048
BANDS = 80
FLOOR, LOG_MEAN, LOG_STD = 1e-5, -4.0, 4.0
"""`(log(FLOOR + mel) - LOG_MEAN) / LOG_STD` is the normalised log-mel."""
NOMINAL_RATE = 16_000
"""What the authors' filter bank takes the sample rate to be."""


def filter_bank(dtype: torch.dtype = torch.float32) -> Tensor:
    """The triangular HTK filters without area normalisation, (N_FFT / 2 + 1, BANDS)."""
    bins = torch.linspace(0, NOMINAL_RATE / 2, N_FFT // 2 + 1, dtype=torch.float64)
    top = 2595 * math.log10(1 + NOMINAL_RATE / 2 / 700)
    corners = 700 * (10 ** (torch.linspace(0, top, BANDS + 2, dtype=torch.float64) / 2595) - 1)
    width = corners.diff()
    slopes = corners - bins[:, None]
    rising, falling = -slopes[:, :-2] / width[:-1], slopes[:, 2:] / width[1:]
    return torch.minimum(rising, falling).clamp(min=0).to(dtype)


class Mel(Streaming):
    """Waveform to normalised log-mel under the state contract, frame t centred on sample 300 t.

    The window reaches 600 samples past its centre. Frame t's own chunk brings 300 of them, the rest
    is the declared `latency` of one frame. Before the first sample there is silence, where the
    offline transform mirrors the signal: `offline(Mel(), x)` equals `mel_spectrogram(x)` except for
    the two frames nearest to either end.
    """

    window: Tensor
    filters: Tensor

    latency = WINDOW // 2 // HOP - 1
    ratio = Fraction(1, HOP)

    def __init__(self) -> None:
        super().__init__()
        self.past = WINDOW - HOP
        self.register_buffer(
            "window", torch.hann_window(WINDOW, dtype=torch.float64).float(), persistent=False
        )
        self.register_buffer("filters", filter_bank(), persistent=False)

    def initial(self, batch: int) -> Tensor:
        """Silence, (B, 1, WINDOW - HOP)."""
        return self.window.new_zeros(batch, 1, self.past)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, 1, N) in [-1, 1] -> y (B, BANDS, N / HOP), one frame late.

        Raises:
            AudioError: x is not (B, 1, N), or N is no multiple of HOP.
        """
        x = torch.cat([state, checked(x)], -1)
        hops = x.reshape(x.shape[0], -1, HOP)
        frames = hops.shape[1] - self.past // HOP
        windows = torch.cat([hops[:, k : k + frames] for k in range(WINDOW // HOP)], -1)
        return self.from_windows(windows), x[..., x.shape[-1] - self.past :]

    def from_windows(self, windows: Tensor) -> Tensor:
        """windows (B, T, WINDOW) of samples -> normalised log-mel (B, BANDS, T).

        The authors centre the window in a frame of N_FFT samples; where the padding sits changes
        phases only, and the power spectrum forgets them, so it goes to the end.
        """
        spectrum = torch.view_as_real(torch.fft.rfft(windows * self.window, N_FFT))
        bands = torch.matmul(spectrum.square().sum(-1), self.filters)
        return ((torch.log(FLOOR + bands) - LOG_MEAN) / LOG_STD).mT


def checked(x: Tensor) -> Tensor:
    """x, if it is (B, 1, N) with N a multiple of HOP.

    Raises:
        AudioError: it is not.
    """
    if x.ndim != 3 or x.shape[1] != 1 or x.shape[-1] % HOP:
        raise AudioError(
            f"expected a waveform of shape (B, 1, N) with N a multiple of {HOP}, got"
            f" {tuple(x.shape)}: pad it"
        )
    return x


def mel_spectrogram(wave: Tensor) -> Tensor:
    """The authors' offline transform: reflected edges, one frame more than N / HOP.

    Args:
        wave: (N,) or (B, N) at 24 kHz, at least N_FFT / 2 + 1 samples.

    Returns:
        (BANDS, 1 + N // HOP) or (B, BANDS, 1 + N // HOP), frame t centred on sample 300 t.

    Raises:
        AudioError: another shape, or too few samples to reflect.
    """
    if wave.ndim not in (1, 2):
        raise AudioError(f"expected a waveform of shape (N,) or (B, N), got {tuple(wave.shape)}")
    if wave.shape[-1] <= N_FFT // 2:
        raise AudioError(
            f"{wave.shape[-1]} samples came, more than {N_FFT // 2} are needed to reflect the"
            " edges: pass a longer recording"
        )
    layer = Mel().to(wave)
    batch = wave if wave.ndim == 2 else wave[None]
    padded = F.pad(batch[:, None], (N_FFT // 2, N_FFT // 2), mode="reflect")[:, 0]
    margin = (N_FFT - WINDOW) // 2
    mel = layer.from_windows(padded[:, margin : padded.shape[-1] - margin].unfold(-1, WINDOW, HOP))
    return mel if wave.ndim == 2 else mel[0]
