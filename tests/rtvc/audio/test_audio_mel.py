"""The mel front end: the authors' transform, and the same thing in a stream."""

import math

import pytest
import torch
from torch import Tensor

from rtvc.audio.energy import energy
from rtvc.audio.mel import BANDS, HOP, SAMPLE_RATE, WINDOW, Mel, filter_bank, mel_spectrogram
from rtvc.errors import AudioError
from rtvc.layers.contract import offline
from rtvc.layers.verify import verify_contract


def tone(seconds: float = 1.0, hertz: float = 440.0, level: float = 0.3) -> Tensor:
    """A sine, (N,) float32."""
    return level * torch.sin(
        2 * math.pi * hertz * torch.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    )


def test_the_filter_bank_is_torchaudios_default_one() -> None:
    """Against numbers that librosa 0.11 gives for the same definition: 80 HTK filters at 16 kHz, 0
    to 8000 Hz, without norm."""
    bank = filter_bank(torch.float64)
    assert bank.shape == (1025, 80)
    wanted = {
        (2, 0): 0.7063722229805431,
        (5, 0): 0.2575315163466116,
        (34, 10): 0.33672612398210017,
        (37, 10): 0.8904680636110366,
        (223, 40): 0.1626202407679792,
        (232, 40): 0.9240012176141162,
        (990, 79): 0.9967189026975343,
        (1010, 79): 0.4104136658166358,
    }
    for (at, band), value in wanted.items():
        assert bank[at, band].item() == pytest.approx(value, abs=1e-12)
    assert bank.sum().item() == pytest.approx(1005.5021391316778, abs=1e-9)
    assert [(bank[:, band] > 0).sum().item() for band in (0, 40, 79)] == [5, 20, 68]


def test_it_equals_the_centred_short_time_transform() -> None:
    """Against torch.stft as torchaudio calls it: centred, reflected, power 2."""
    x = torch.randn(
        2, 7 * HOP + 113, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    window = torch.hann_window(WINDOW, dtype=torch.float64)
    spectrum = torch.stft(
        x, 2048, HOP, WINDOW, window, center=True, pad_mode="reflect", return_complex=True
    )
    bands = torch.einsum("bft,fm->bmt", spectrum.abs().square(), filter_bank(torch.float64))
    wanted = (torch.log(1e-5 + bands) + 4) / 4
    assert mel_spectrogram(x).shape == (2, BANDS, 8)
    torch.testing.assert_close(mel_spectrogram(x), wanted, rtol=0, atol=1e-6)
    torch.testing.assert_close(mel_spectrogram(x[0]), wanted[0], rtol=0, atol=1e-6)


def test_silence_and_full_scale() -> None:
    silent = mel_spectrogram(torch.zeros(2400))
    torch.testing.assert_close(silent, torch.full_like(silent, (math.log(1e-5) + 4) / 4))
    band = mel_spectrogram(tone(hertz=1500.0))[:, 40].argmax().item()
    centre = filter_bank()[:, int(band)].argmax().item() * SAMPLE_RATE / 2048
    assert abs(centre - 1500) < 60


def test_the_stream_keeps_the_contract() -> None:
    verify_contract(Mel(), 1, frames=14 * HOP, unit=HOP)


def test_offline_equals_the_centred_transform_away_from_the_edges() -> None:
    x = torch.randn(1, 40 * HOP, generator=torch.Generator().manual_seed(2))
    streamed, centred = offline(Mel(), x[:, None]), mel_spectrogram(x)
    assert streamed.shape == (1, BANDS, 40)
    torch.testing.assert_close(streamed[..., 2:-1], centred[..., 2:-2], rtol=0, atol=2e-5)
    padded = torch.cat([torch.zeros(1, 1200), x, torch.zeros(1, 1200)], 1)
    torch.testing.assert_close(streamed, mel_spectrogram(padded)[..., 4:44], rtol=0, atol=2e-5)


def test_the_declared_latency_is_the_smallest_possible() -> None:
    """An impulse so strong that it shows through the very end of the window: no sample that a chunk
    brings is kept waiting."""
    x = torch.zeros(1, 1, 10 * HOP)
    x[..., 6 * HOP - 1] = 1e6
    quiet = (math.log(1e-5) + 4) / 4
    y, _ = Mel()(x, Mel().initial(1))
    loud = (y.amax(1)[0] > quiet + 1e-3).nonzero()[:, 0].tolist()
    assert loud[0] == 5, (
        "the last sample of chunk 5 must already show in the frame that chunk 5 emits"
    )


def test_energy_is_the_log_norm() -> None:
    mel = torch.randn(2, 80, 5, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(
        energy(mel), torch.log(torch.exp(4 * mel - 4).norm(dim=1, keepdim=True))
    )
    assert energy(mel).shape == (2, 1, 5)


@pytest.mark.parametrize("shape", [(1, 2, 600), (1, 1, 601), (600,)])
def test_the_stream_refuses_wrong_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(AudioError, match=r"\(B, 1, N\)"):
        Mel()(torch.zeros(shape), Mel().initial(1))


def test_the_offline_transform_refuses_wrong_shapes() -> None:
    with pytest.raises(AudioError, match="expected a waveform"):
        mel_spectrogram(torch.zeros(1, 1, 2400))
    with pytest.raises(AudioError, match="longer recording"):
        mel_spectrogram(torch.zeros(1024))
