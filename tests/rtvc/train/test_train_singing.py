"""The range of singing: a pitch network up to 1,100 Hz learns sung vowels up to 1,000 Hz, and goes
into the model that does not have it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

import rtvc
from rtvc.audio.mel import HOP
from rtvc.data.labelled import CONTENT, Utterance, save_utterance
from rtvc.models.streaming.analysis import BANDS
from rtvc.models.streaming.assets import StreamingModel, load_file, save_file
from rtvc.models.streaming.dial import DialConverter
from rtvc.models.streaming.model import StreamingConfig, StreamingConverter
from rtvc.models.streaming.pitch import AHEAD
from rtvc.train.config import load_config
from rtvc.train.export import export
from rtvc.train.loop import Trainer
from rtvc.train.registry import make_stage, stage_type
from rtvc.train.streaming.stream_pitch import StreamPitchConfig
from tests.support.singing import FORMANTS, RATE, sung
from tests.support.small_models import SIZES
from tests.support.stream_stages import config

ROOT = Path(__file__).parents[3]
HIGHEST = 1100.0
WITHIN = 60.0
"""Cents of half a bin of the small network and of what vibrato adds in the time of a window."""


def labelled(pitch: float, vowel: str, seed: int) -> Utterance:
    """A sung note with its exact F0, and no content."""
    wave, f0 = sung(pitch, vowel, 2.0, seed)
    frames = len(wave) // 600
    at = (np.arange(2 * frames) * HOP + HOP // 2).clip(max=len(f0) - 1)
    return Utterance(
        (wave * 32767).astype(np.int16),
        np.zeros((CONTENT, frames), np.float32),
        np.zeros(frames, np.int64),
        f0[at].astype(np.float32),
        np.ones(2 * frames, np.float32),
        f"singer{seed % 2}",
        float(RATE),
        False,
    )


def cents(model: StreamingModel, wave: np.ndarray, f0: np.ndarray) -> float:
    """The median error of the pitch that the model hears."""
    x = torch.from_numpy(wave[: len(wave) // HOP * HOP])[None, None]
    with torch.inference_mode():
        features, _ = model.analysis(x, model.analysis.initial(1))
        pitch, _ = model.pitch(features[:, BANDS:], model.pitch.initial(1))
    if isinstance(model, DialConverter):
        first, moment = 0, model.analysis.centre + AHEAD
    else:  # output t + 2 speaks for 1.5 frames after frame t
        first, moment = 2, HOP + AHEAD
    told = pitch[0, 0, first:].exp().numpy()
    at = (np.arange(len(told)) * HOP + moment).clip(max=len(f0) - 1)
    return float(np.median(np.abs(1200 * np.log2(told / f0[at]))[16:-8]))


def test_the_shipped_model_follows_song_up_to_1000_hz() -> None:
    model = rtvc.load().model.streaming.converter  # type: ignore[union-attr]
    for pitch in (110, 220, 330, 440, 520, 560, 700, 850, 1000):
        found = [cents(model, *sung(pitch, vowel)) for vowel in FORMANTS]  # type: ignore[arg-type]
        print(f"\nshipped, {pitch} Hz: median {np.median(found):.0f} cents", end="")
        assert np.median(found) < 50, f"{pitch} Hz: {found}"


@pytest.fixture(scope="module")
def singer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run of stream_pitch on vowels up to 500 Hz, half of them played faster."""
    folder = tmp_path_factory.mktemp("song")
    (folder / "notes").mkdir()
    for number in range(24):
        vowel = "aeio"[number % 4]
        note = labelled(120 * 2 ** (2 * number / 23), vowel, number)
        save_utterance(folder / "notes" / f"{number:02}.npz", note)
    file = config(folder, folder / "notes", 160, 1e-2, top="warm = 8\nhigh = 0.5")
    sizes = ["model.pitch_hidden=32", "model.pitch_bins=160", f"model.pitch_highest={HIGHEST}"]
    settings = load_config(
        StreamPitchConfig, file, [*sizes, "ema=0.95", "data.frames=48", "data.batch=8"]
    )
    torch.manual_seed(0)
    run = folder / "run"
    stage = make_stage("stream_pitch", settings)
    Trainer(stage, settings, run, console=Console(quiet=True)).fit()
    assert stage_type("stream_pitch").config_type is StreamPitchConfig
    return run


def test_sung_vowels_up_to_1000_hz_are_followed(singer: Path, tmp_path: Path) -> None:
    """Vowels, pitches and vibratos that it never heard; what is exported sings as the run does."""
    torch.manual_seed(1)
    speaks = StreamingConverter(StreamingConfig(**SIZES))
    save_file(speaks, tmp_path / "speaks.safetensors")
    out = export([tmp_path / "speaks.safetensors", singer], tmp_path / "sings.safetensors")
    model = load_file(out)
    assert isinstance(model, StreamingConverter) and model.config.pitch_highest == HIGHEST
    assert model.config.pitch_bins == 160 and model.config.decoder_hidden == SIZES["decoder_hidden"]
    found = {
        (pitch, vowel): cents(model, *sung(pitch, vowel, seed=99))
        for pitch in (180, 270, 390, 560, 700, 850, 1000)
        for vowel in FORMANTS
    }
    for pitch in dict.fromkeys(pitch for pitch, _ in found):
        told = np.median([found[pitch, vowel] for vowel in FORMANTS])
        print(f"\nsmall, {pitch} Hz: median {told:.0f} cents", end="")
    assert np.median(list(found.values())) < WITHIN
    for pitch in (700, 850, 1000):
        assert np.median([found[pitch, vowel] for vowel in FORMANTS]) < WITHIN, found


def test_the_shipped_model_sings_in_tune() -> None:
    """With the speaker's own register kept; told by swift-f0, which no part of the model is."""
    pytest.importorskip("swift_f0")
    from rtvc.train.streaming.pseudo_labels import SwiftF0

    vc, hears = rtvc.load(), SwiftF0()
    voice = vc.voice(ROOT / "examples" / "reference.flac")
    for pitch in (440, 700, 900):
        wave, f0 = sung(pitch, seconds=2.0)
        said = vc.convert(wave, RATE, voice, prosody=0.0)
        assert said.shape == wave.shape and np.isfinite(said).all()
        times, told, sure = hears(said)
        at = (times * RATE).astype(int).clip(max=len(f0) - 1)
        off = np.abs(1200 * np.log2(told / f0[at]))[(sure > 0.5) & (times > 0.3) & (times < 1.8)]
        print(f"\nshipped, said, {pitch} Hz: median {np.median(off):.0f} cents", end="")
        assert len(off) > 40 and np.median(off) < WITHIN, f"{pitch} Hz"
