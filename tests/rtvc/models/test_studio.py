"""The studio model, its file, its training stage and its map between style spaces, with a small
decoder in the teacher's place."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rtvc.audio.mel import SAMPLE_RATE
from rtvc.converter import VoiceConverter
from rtvc.errors import CheckpointError, TrainingError
from rtvc.models import studio
from rtvc.models.streaming import StreamingConverter
from rtvc.models.studio import StudioConverter, load_file, save_file, speech_level
from rtvc.models.styletts2.decoder import ISTFTNetDecoder
from rtvc.models.styletts_vc.norms import fold_weight_norm
from rtvc.train.config import load_config
from rtvc.train.loop import Trainer
from rtvc.train.stages.studio import assemble, fit_style_map
from rtvc.train.stages.transfer import Transfer, TransferConfig
from tests.support.small_models import small_converter as small
from tests.support.standins import speech


def decoder() -> ISTFTNetDecoder:
    torch.manual_seed(5)
    made = ISTFTNetDecoder(width=16, channels=16)
    fold_weight_norm(made)
    return made.requires_grad_(False).eval()


def tiny() -> StudioConverter:
    torch.manual_seed(4)
    return StudioConverter(small(), decoder()).requires_grad_(False).eval()


def vowel(seconds: float, f0: float = 140.0) -> np.ndarray[Any, Any]:
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (
        0.1
        * sum(np.sin(2 * np.pi * f0 * k * t) / k for k in range(1, 20))
        * (1 + 0.5 * np.sin(6 * t))
    ).astype(np.float32)


def teacher_files(folder: Path, count: int = 44) -> list[Path]:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for k in range(count):
        wave, frames = (vowel(1.6, rng.uniform(90, 250)) * 32767).astype(np.int16), 64
        np.savez(
            folder / f"{k:03d}.npz",
            audio=wave,
            content=rng.standard_normal((512, frames)).astype(np.float16),
            f0=np.full(2 * frames, 150, np.float32),
            n=np.zeros(2 * frames, np.float32),
            phon=rng.integers(0, 178, frames).astype(np.int16),
            style=rng.standard_normal(256).astype(np.float32),
        )
    return sorted(folder.glob("*.npz"))


def test_it_converts_through_the_public_api() -> None:
    vc = VoiceConverter(tiny())
    voice = vc.voice((speech(2.0, SAMPLE_RATE, 200.0), SAMPLE_RATE))
    y = vc.convert(vowel(1.51), SAMPLE_RATE, voice)
    assert y.shape == (int(1.51 * SAMPLE_RATE),) and np.isfinite(y).all() and np.abs(y).max() > 0
    assert vc.latency is None
    with pytest.raises(Exception, match="needs whole recordings"):
        vc.stream(voice)


def test_long_recordings_go_in_pieces_without_a_jump(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    wave = torch.from_numpy(vowel(3.0))[None, None]
    style = torch.randn(1, 128)
    whole = model.convert(wave, style, style, pitch=0.0, prosody=1.0)
    monkeypatch.setattr(studio, "PIECE", SAMPLE_RATE)
    monkeypatch.setattr(studio, "OVERLAP", SAMPLE_RATE // 4)
    pieces = model.convert(wave, style, style, pitch=0.0, prosody=1.0)
    assert pieces.shape == whole.shape
    assert pieces.diff().abs().max() < 3 * whole.diff().abs().max()
    assert 0.5 < pieces.square().mean() / whole.square().mean() < 2


def test_register_moves_to_the_target() -> None:
    log_f0, voiced = torch.linspace(4.5, 5.0, 100)[None], torch.ones(1, 100, dtype=torch.bool)
    target = torch.tensor([5.5, 0.2, 1.0])
    moved = StudioConverter.mapped(log_f0, voiced, target, 1.0)
    assert abs(moved.mean() - 5.5) < 1e-4
    assert torch.equal(StudioConverter.mapped(log_f0, voiced, target, 0.0), log_f0)
    assert torch.equal(StudioConverter.mapped(log_f0, voiced & False, target, 1.0), log_f0)


def test_level_is_that_of_the_speech() -> None:
    loudness = torch.tensor([[5.0, 5.0, -9.0, 5.0, -9.0]])
    assert speech_level(loudness) == 5.0


def test_file_holds_only_what_is_ours(tmp_path: Path) -> None:
    model = tiny()
    path = save_file(model, tmp_path / "s.safetensors", {"note": "x"})
    assert path.stat().st_size < 10e6
    again = load_file(path, model.stream, model.decoder)
    torch.testing.assert_close(again.style_map.weight, model.style_map.weight, rtol=2e-3, atol=1e-3)
    for content in (b"nothing", path.read_bytes()[:1000]):
        (tmp_path / "bad.safetensors").write_bytes(content)
        with pytest.raises(CheckpointError, match="truncated or no checkpoint"):
            load_file(tmp_path / "bad.safetensors", model.stream, model.decoder)
    from safetensors.torch import save_file as save_tensors

    save_tensors({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="no studio model"):
        load_file(tmp_path / "other.safetensors", model.stream, model.decoder)
    with pytest.raises(CheckpointError, match="not there"):
        load_file(tmp_path / "none.safetensors", model.stream, model.decoder)


class Linear(StreamingConverter):
    """Its acoustic style is the teacher's, turned by a known matrix: what a regression must
    find."""

    def __init__(self, truth: dict[int, torch.Tensor], turn: torch.Tensor) -> None:
        super().__init__(small().config)
        self.truth, self.turn, self.calls = truth, turn, 0

    def styles(self, wave: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        style = self.turn @ self.truth[self.calls]
        self.calls += 1
        return style[None], style[None]


def test_style_map_finds_a_linear_relation(tmp_path: Path) -> None:
    files = teacher_files(tmp_path / "t", 300)
    truth = {k: torch.from_numpy(np.load(f)["style"][:128]) for k, f in enumerate(files)}
    turn = torch.linalg.qr(torch.randn(128, 128, generator=torch.Generator().manual_seed(1)))[0]
    found = fit_style_map(Linear(truth, turn), files, ridge=1e-6)
    assert found.r2 > 0.99
    torch.testing.assert_close(found.weight @ turn, torch.eye(128), rtol=0, atol=0.02)
    model = assemble(small(), decoder(), tiny().mel_encoder.state_dict(), found)
    assert torch.equal(model.style_map.weight, found.weight)
    with pytest.raises(TrainingError, match="at least 40"):
        fit_style_map(small(), files[:3])


def test_stage_learns_and_resumes(tmp_path: Path) -> None:
    teacher_files(tmp_path / "speech", 4)
    config = tmp_path / "c.toml"
    config.write_text(
        "steps = 12\nprecision = 'float32'\nworkers = 0\n[data]\nlabelled ="
        f" ['{tmp_path / 'speech'}']\nbatch = 2\nframes = 96\nheld_out = 1\n[optimizer]\nlr ="
        " 2e-3\nschedule = 'constant'\n[log]\nevery = 1\ntensorboard = false\nvalidate_every = 0\n"
    )
    settings = load_config(TransferConfig, config)

    def run(folder: str, steps: int) -> Any:
        torch.manual_seed(0)
        trainer = Trainer(Transfer(settings, decoder()), settings, tmp_path / folder)
        return trainer.fit(max_steps=steps)

    whole = run("whole", 6)
    run("parts", 3)
    parts = run("parts", 3)
    assert parts.losses["content"] == pytest.approx(whole.losses["content"], rel=1e-6)
    stage = Transfer(settings, decoder())
    first = stage.losses("transfer", stage.batch(0), 0)
    assert set(first) == {"content", "phonemes", "outputs", "metric/phonemes_right"}
    assert "outputs" not in stage.losses("transfer", stage.batch(1), 1)
    assert whole.losses["content"] < first["content"].item()
    assert set(stage.validate(0)) == {"content", "phonemes", "outputs", "phonemes_right"}
    assert set(stage.sample(0).mels) == {"found", "true"}
