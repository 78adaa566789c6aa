"""The head of the decoder, fitted straight to recordings."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from rtvc.audio.mel import HOP, SAMPLE_RATE
from rtvc.audio.mel_distance import MultiResolutionMel
from rtvc.benchmarks import ceiling
from rtvc.benchmarks.ceiling import fitted, pieces, said_by
from rtvc.models.streaming.assets import load_default, save_file
from rtvc.models.streaming.decoder import BINS, Decoder
from tests.support.small_models import small_converter

F0 = 150.0


def vowel(frames: int) -> Tensor:
    """Harmonics of 150 Hz that fall by 12 dB an octave, in beats of ten a second, and a breath, (1,
    N)."""
    time = torch.arange(frames * HOP, dtype=torch.float64) / SAMPLE_RATE
    tone = sum(torch.cos(2 * torch.pi * F0 * k * time) / k**2 for k in range(1, 40))
    assert isinstance(tone, Tensor)
    beats = 0.52 + 0.48 * torch.cos(2 * torch.pi * 10 * time)
    breath = torch.randn(len(time), generator=torch.Generator().manual_seed(0))
    return (beats * (0.3 * tone + 0.02 * breath)).float()[None]


def test_a_fit_says_what_was_recorded_when_it_was() -> None:
    frames = 24
    wave, melody = vowel(frames), torch.full((1, frames), float(np.log(F0)))
    mels = MultiResolutionMel()
    found = {}
    for bins in (0, BINS):
        head = Decoder(1, 8, 3, (1,), phase_bins=bins)
        made = fitted(head, wave, melody, torch.ones(1, frames), mels, 30)
        assert made.shape == wave.shape
        found[bins] = float(mels(made, wave))
        late = torch.nn.functional.pad(made, (HOP, 0))[:, : wave.shape[1]]
        assert found[bins] < 0.9 * float(mels(late, wave))  # aligned
    assert found[0] < 0.5 * float(mels(0.01 * wave, wave))
    assert found[BINS] < found[0]


def test_pieces_are_of_different_speakers_and_whole_bandwidth(tmp_path: Path) -> None:
    lines = ["path\tspeaker\tbandwidth_rate"]
    for name, speaker, rate, seconds in (
        ("a", "anna", 24_000, 2.0),
        ("b", "anna", 24_000, 2.0),
        ("c", "bert", 16_000, 2.0),
        ("d", "carl", 24_000, 0.5),
        ("e", "dora", 24_000, 2.0),
    ):
        soundfile.write(tmp_path / f"{name}.wav", vowel(int(seconds * 80))[0].numpy(), SAMPLE_RATE)
        lines.append(f"{name}.wav\t{speaker}\t{rate}")
    (tmp_path / "list.tsv").write_text("\n".join(lines) + "\n")
    found = dict(pieces(tmp_path / "list.tsv", 5, 1.0, 24_000))
    assert list(found) == ["anna", "dora"]
    assert all(len(wave) == SAMPLE_RATE and wave.abs().max() == 0.5 for wave in found.values())


def test_the_recordings_are_said_by_the_models_that_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels: list[float] = []

    def loudness(waves: Tensor) -> dict[str, float]:
        levels.append(float(waves.abs().mean()))
        return {"dnsmos": levels[-1], "distillmos": 0.0}

    monkeypatch.setattr(ceiling, "scores", loudness)
    file = save_file(small_converter().eval(), tmp_path / "small.safetensors")
    wave = vowel(40)
    found = list(ceiling.rows(wave, 1, [file]))
    assert [row["what"] for row in found] == [
        "recordings",
        "shipped model, own voice",
        "small.safetensors, own voice",
    ]
    assert found[0]["dnsmos"] == float(wave.abs().mean()) and len(set(levels)) == 3


def test_the_melody_of_what_is_fitted_is_that_of_its_samples() -> None:
    model = load_default().eval()
    wave = vowel(120)
    wave[:, : 60 * HOP] = 0
    said, log_f0, voicing = said_by(model, wave)
    assert said.shape == wave.shape and log_f0.shape == voicing.shape == (1, 120)
    onset = int((voicing[0] > 0.5).nonzero()[0])
    assert abs(onset - 60) <= 2
    assert torch.exp(log_f0[0, 70:110]).median().item() == pytest.approx(F0, rel=0.02)
