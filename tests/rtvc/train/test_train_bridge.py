"""The bridge learns, labels real speech, goes on after a stop, and tells what it could not use."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from rich.console import Console

from rtvc.cli import main
from rtvc.data.labelled_speech import Labelled
from rtvc.data.manifest import Entry, write_manifest
from rtvc.data.registry import cache_dir
from rtvc.errors import CheckpointError, TrainingError
from rtvc.train.config import load_config
from rtvc.train.loop import Trainer
from rtvc.train.registry import default_config
from rtvc.train.state import load_weights, save_weights
from rtvc.train.streaming import bridge
from rtvc.train.streaming import pseudo_labels as labels
from rtvc.train.streaming.bridge import Bridge, BridgeConfig, BridgeNet, Listener, at_40
from rtvc.train.streaming.pseudo_labels import file_name, interleaved, label_all, on_frames
from tests.support.labelled_speech import make_labelled, utterance
from tests.support.train_runs import labelled_settings, run_settings


def hears(wave: np.ndarray) -> np.ndarray:
    """In place of Whisper: the level of 512 bands, 50 times a second."""
    frames = len(wave) // 480
    spectrum = np.abs(np.fft.rfft(wave[: frames * 480].reshape(frames, 480), 1024))[:, :512]
    return (np.log(spectrum + 0.1) / 2).astype(np.float16)


def sings(wave: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """In place of swift-f0: 210 Hz wherever there is sound."""
    times = (np.arange(len(wave) // 384) + 0.5) * 384 / 24_000
    level = np.abs(wave[: len(times) * 384]).reshape(-1, 384).max(1)
    return times, np.full(len(times), 210.0), (level > 0.05).astype(np.float64)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bridge")
    speech = make_labelled(folder / "speech")
    speech /= "teacher"
    (folder / "config.toml").write_text(
        run_settings(80, 1e-2, validate_every=10)
        + labelled_settings(speech, frames=60, held_out=1)
        + f'cache = "{speech}/heard"\n[model]\nhidden = 16\nblocks = 1\n'
    )
    config = load_config(BridgeConfig, folder / "config.toml")
    torch.manual_seed(0)
    Trainer(Bridge(config, hears), config, folder / "run", console=Console(quiet=True)).fit()
    return folder / "run"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    entries = []
    for number, speaker in enumerate(("anna", "anna", "bert")):
        path = tmp_path / f"{speaker}{number}.wav"
        soundfile.write(path, utterance(speaker, number).audio, 24_000)
        entries.append(Entry(path, speaker, 2.0, 16_000))
    entries[1].path.write_text("no audio")
    write_manifest(tmp_path / "m.tsv", entries)
    return tmp_path / "m.tsv"


def test_the_bridge_learns(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for name, share in (("content", 0.8), ("phonemes", 0.7)):
        values = [line[name] for line in lines if name in line]
        assert np.mean(values[-4:]) < share * np.mean(values[:4])
    assert any("valid/phonemes_right" in line for line in lines)
    assert list((run.parent / "speech" / "teacher" / "heard").rglob("*.npy")), (
        "what was heard is kept"
    )


def test_bridge_and_weights(run: Path) -> None:
    weights = load_weights(run)["bridge"]
    net = BridgeNet.of_weights(weights)
    assert len(net.blocks) == 1 and not net.training
    content, logits = net(torch.zeros(2, 9, 512))
    assert content.shape == (2, 9, 512) and logits.shape == (2, 9, 178)
    settings = load_config(BridgeConfig, default_config("bridge"))
    assert sum(
        p.numel() for p in BridgeNet(**settings.model.model_dump()).parameters()
    ) == pytest.approx(4.9e6, rel=0.05)


def test_forty_frames_of_fifty() -> None:
    heard = torch.arange(100.0)[:, None]
    assert torch.allclose(
        at_40(heard, 80)[:, 0], ((torch.arange(80) + 0.5) * 1.25).clamp(0, 98.999), atol=1e-4
    )


def test_real_speech_is_labelled(run: Path, manifest: Path, tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    report = label_all(manifest, tmp_path / "out", run, hears, sings, lambda *now: done.append(now))
    assert (report.labelled, report.existing, list(report.refused)) == (
        2,
        0,
        [str(tmp_path / "anna1.wav")],
    ) and done[-1] == (3, 3)
    assert "anna1.wav" in (tmp_path / "out" / "refused.tsv").read_text()
    labelled = Labelled([tmp_path / "out"])
    assert sorted(labelled.speakers) == ["anna", "bert"] and not labelled.remarks()
    found, true = labelled.utterance(0)[1], utterance("anna", 0)
    assert found.bandwidth == 16_000 and not found.exact and found.content.shape == (512, 80)
    assert np.abs(found.audio.astype(int) - true.audio).max() <= 2
    assert (found.phonemes == true.phonemes).mean() > 0.8, (
        "the bridge carries over to speech that it has not seen"
    )
    inside = (found.f0 > 0) & (true.f0 > 0)
    assert inside.sum() > 60 and np.allclose(found.f0[inside], 210)
    (tmp_path / "anna1.wav").unlink()
    next((tmp_path / "out").glob("bert*")).unlink()
    again = label_all(manifest, tmp_path / "out", run, hears, sings)
    assert (again.labelled, again.existing, len(again.refused)) == (1, 1, 1)


def test_labels_of_two_bridges_do_not_mix(run: Path, manifest: Path, tmp_path: Path) -> None:
    label_all(manifest, tmp_path / "out", run, hears, sings)
    weights = load_weights(run)
    weights["bridge"] = {name: tensor + 1 for name, tensor in weights["bridge"].items()}
    save_weights(tmp_path / "other.safetensors", weights, {})
    with pytest.raises(TrainingError, match="another bridge"):
        label_all(manifest, tmp_path / "out", tmp_path / "other.safetensors", hears, sings)
    save_weights(tmp_path / "foreign.safetensors", {"encoder": weights["bridge"]}, {})
    with pytest.raises(CheckpointError, match="rtvc train bridge"):
        label_all(manifest, tmp_path / "out", tmp_path / "foreign.safetensors", hears, sings)


def test_melody_on_frames() -> None:
    times = np.arange(125) * 0.016
    f0, confidence = on_frames(times, np.full(125, 100.0), (times < 1).astype(float), 160)
    assert np.allclose(f0[:78], 100) and not f0[82:].any() and confidence[0] == 1
    assert not on_frames(times[:0], times[:0], times[:0], 8)[0].any()
    assert not on_frames(times, times, np.zeros(125), 8)[0].any()


def test_order_and_names(tmp_path: Path) -> None:
    entries = [
        Entry(tmp_path / speaker / f"{k}.wav", speaker) for speaker in "ab" for k in range(2)
    ]
    assert [(e.speaker, e.path.stem) for e in interleaved(entries)] == [
        ("a", "0"),
        ("b", "0"),
        ("a", "1"),
        ("b", "1"),
    ]
    twins = [
        Entry(tmp_path / "a.wav", "a"),
        Entry(tmp_path / "a.flac", "a"),
        Entry(Path("/elsewhere/a.wav"), "a"),
    ]
    assert len({file_name(entry, tmp_path) for entry in twins}) == 3
    assert file_name(twins[0], tmp_path).startswith("a-") and file_name(
        twins[0], tmp_path
    ) == file_name(twins[0], tmp_path)


def test_command(
    run: Path,
    manifest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def listener(threads: int) -> Callable[[np.ndarray], np.ndarray]:
        return hears

    monkeypatch.setattr(bridge, "Listener", listener)
    monkeypatch.setattr(labels, "SwiftF0", lambda: sings)
    assert (
        main(
            [
                "data",
                "label",
                str(manifest),
                "-o",
                str(tmp_path / "out"),
                "--bridge",
                str(run),
                "--json",
            ]
        )
        == 0
    )
    summary = json.loads(capsys.readouterr().out)
    assert summary["made"] == 2 and summary["refused"] == 1
    assert (
        main(["data", "label", str(manifest), "-o", str(tmp_path / "out"), "--bridge", str(run)])
        == 0
    )
    assert "found 2" in capsys.readouterr().out


def test_f0_of_a_tone(tmp_path: Path) -> None:
    pytest.importorskip("swift_f0")
    time = np.arange(24_000) / 24_000
    wave = sum(np.sin(2 * np.pi * 150 * k * time) / k for k in range(1, 9)).astype(np.float32) * 0.2
    f0, confidence = on_frames(*labels.SwiftF0()(wave), 80)
    assert np.median(f0[20:60]) == pytest.approx(150, rel=0.01) and confidence[20:60].min() > 0.85


@pytest.mark.skipif(
    not (cache_dir() / "whisper-base").is_dir(),
    reason="needs Whisper base, which `rtvc evaluate` fetches",
)
def test_listener_hears_fifty_frames_a_second() -> None:
    pytest.importorskip("faster_whisper")
    heard = Listener()(utterance("anna", 1).audio.astype(np.float32) / 32768)
    assert (
        heard.shape[1] == 512
        and heard.dtype == np.float16
        and 100 <= len(heard) <= 126
        and np.isfinite(heard).all()
    )
