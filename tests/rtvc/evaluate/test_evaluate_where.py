"""Who loses the words: labels that lie in time as the encoder's answers do, rows with the right
parts in play, and their costs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluation import SAID, FakeEvaluators, pair_list
from standins import recording, speech

import rtvc
import rtvc.evaluate.run
from rtvc.audio.mel import HOP
from rtvc.cli import main
from rtvc.converter import VoiceConverter
from rtvc.evaluate import evaluators
from rtvc.evaluate.audio import Wave, read
from rtvc.evaluate.converter import LibraryConverter, streamed
from rtvc.evaluate.pairs import read_pairs
from rtvc.evaluate.studies import labels
from rtvc.evaluate.studies.labels import BridgeLabels, LongestLookahead, TeacherSpeech
from rtvc.evaluate.studies.where import (
    DIAL_ROWS,
    DIAL_STEPS,
    ROWS,
    STEPS,
    TEACHER_ROWS,
    TEACHER_STEPS,
    Told,
    costs,
    said_again,
    told,
    where,
)
from rtvc.models.streaming.analysis import BANDS
from rtvc.models.streaming.model import StreamingConfig, StreamingConverter
from rtvc.stream_model import StreamModel
from rtvc.train.material.stream_data import StreamStage
from rtvc.train.streaming.bridge import BridgeNet
from rtvc.voices.voice import Voice
from tests.support.small_models import small_dial

SMALL = StreamingConfig(
    content_hidden=16, content_dilations=(1,), pitch_hidden=8, pitch_dilations=(1,),
    decoder_hidden=16, decoder_dilations=(1, 2), acoustic_hidden=8, prosodic_hidden=8,
)  # fmt: skip


def small() -> StreamingConverter:
    """Untrained, but of the shipped model's kind."""
    torch.manual_seed(0)
    return StreamingConverter(SMALL).eval().requires_grad_(False)


def test_an_encoder_told_its_own_answers_changes_nothing() -> None:
    """The encoder's content, laid in time as labels are, gives the conversion back: not a frame
    early, not a frame late."""
    model, wave = small(), torch.from_numpy(speech(2.0, 24_000))
    voice = Voice(torch.randn(128), torch.randn(128))
    frames = len(wave) // HOP
    features = StreamStage.analysed(SimpleStage(model), wave[None], model.encoder.latency)  # type: ignore[arg-type]
    content, _ = StreamStage.recognised(model.encoder, features, frames)
    plain, _ = streamed(model, wave, voice, 20 * HOP)
    again, _ = streamed(told(model, content[0]), wave, voice, 20 * HOP)
    early, _ = streamed(told(model, content[0].roll(-1, -1)), wave, voice, 20 * HOP)
    # Around the recording the encoder heard silence, and was told its first and last frame.
    edge = 20 * HOP
    inner = slice(edge, len(wave) - edge)
    scale = plain[inner].abs().max()
    assert (again[inner] - plain[inner]).abs().max() < 1e-4 * scale
    assert (early[inner] - plain[inner]).abs().max() > 1e-2 * scale
    assert model.encoder is not told(model, content[0]).encoder, (
        "the model itself keeps its encoder"
    )


@pytest.mark.parametrize("lookahead", [0, 1, 4])
def test_content_of_a_dial_lies_where_its_encoder_says_it(lookahead: int, tmp_path: Path) -> None:
    """Told what its own encoder gives, a converter says the same; told the longest look-ahead's, as
    `--where` does, it says something else at every other setting."""
    model = small_dial().requires_grad_(False)
    path = recording(tmp_path / "a.wav", rate=24_000)
    wave = torch.from_numpy(read(path))
    voice = Voice(torch.randn(model.acoustic_size), torch.randn(128))
    model.set_lookahead(lookahead)
    plain, _ = streamed(model, wave, voice, 20 * HOP)
    longest = LongestLookahead(model)(path)
    for right, same in ((lookahead, True), (8, False)):
        content = longest
        if right == lookahead:
            features, _ = model.analysis(wave[None, None], model.analysis.initial(1))
            content = model.encoder.contents(features[:, :BANDS], (right,))[0][0]
        again, _ = streamed(told(model, content), wave, voice, 20 * HOP)
        inner = slice(20 * HOP, len(wave) - 20 * HOP)
        off = (again[inner] - plain[inner]).abs().max() / plain[inner].abs().max()
        assert off < 1e-4 if same else off > 1e-3


class SimpleStage:
    """As much of a training stage as its analysis needs."""

    def __init__(self, model: StreamingConverter) -> None:
        self.analysis = model.analysis


def test_what_is_told_does_not_depend_on_the_chunks() -> None:
    content, mel = torch.randn(4, 30), torch.zeros(1, 3, 40)
    layer = Told(content, 1, 2)
    whole, _ = layer(mel, layer.initial(1))
    state, parts = layer.initial(1), []
    for piece in mel.split(7, -1):
        y, state = layer(piece, state)
        parts.append(y)
    assert torch.equal(torch.cat(parts, -1), whole)
    assert torch.equal(whole[0, :, 2:32], content)
    assert torch.equal(whole[0, :, :2], content[:, :1].expand(4, 2))
    assert torch.equal(whole[0, :, 32:], content[:, -1:].expand(4, 8))


class Spy(LibraryConverter):
    """Remembers whose voice was asked for."""

    def __init__(self) -> None:
        self._converter = VoiceConverter(StreamModel(small()))
        self._fit, self._samples, self._stepper, self._voices = 0, None, None, {}
        self.name, self.key, self.asked = "spy", "spy", []

    def voice(self, references: list[Path]) -> Voice:
        self.asked.append([path.name for path in references])
        return super().voice(references)


def test_rows_ask_for_the_right_voice_and_labels(tmp_path: Path) -> None:
    pair_list(tmp_path)
    converter, audio = Spy(), tmp_path / "eval"
    asked: list[str] = []

    def content(path: Path) -> torch.Tensor:
        asked.append(path.name)
        return torch.randn(512, 80)

    outputs = {}
    for row in ROWS:
        converter.asked.clear()
        outputs[row.title], _ = said_again(converter, row, {"labels": content})(
            audio / "s0_0.wav", [audio / "s1_0.wav"]
        )
        assert set(map(tuple, converter.asked)) == {
            ("s0_0.wav",) if row.own_voice else ("s1_0.wav",)
        }, row.title
        assert len(outputs[row.title]) == 24_000
    assert asked == ["s0_0.wav"] * 2
    assert len({wave.tobytes() for wave in outputs.values()}) == 4


class Silencing(Spy):
    """Speaks up with labels, and softly, so that a word is lost, with its encoder."""

    def __call__(self, source: Path, references: list[Path]) -> tuple[Wave, float]:
        return np.full(24_000, 0.1, np.float32), 0.1


def test_costs_are_the_changes_from_row_to_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stand-in evaluators lose one of four words of what is soft: here, of two of three recordings
    and of what the encoder heard."""
    loud = np.full(24_000, 0.5, np.float32)
    monkeypatch.setattr(
        "rtvc.evaluate.studies.where.streamed", lambda *arguments: (torch.from_numpy(loud), 0.1)
    )
    pairs, seen = read_pairs(pair_list(tmp_path)), []
    ears, cache = FakeEvaluators(), tmp_path / "cache"
    found = where(
        Silencing(), pairs, {"labels": lambda path: torch.zeros(512, 80)}, cache=cache,
        evaluators=ears.bundle(), progress=lambda *step: seen.append(step),
    )  # fmt: skip
    assert list(found) == ["source", *(row.title for row in ROWS)]
    assert [found[name]["summary"]["wer"] for name in found] == pytest.approx(
        [1 / 6, 0, 1 / 4, 0, 1 / 4], abs=1e-5
    )
    assert found["source"]["summary"]["distillmos"] == pytest.approx(
        found["labels, own voice"]["summary"]["distillmos_source"]
    )
    changes = {
        title: cost["wer"].change for title, cost in costs(found, STEPS).items() if cost["wer"]
    }
    assert changes == pytest.approx(
        {
            "labels and decoder": -1 / 6,
            "encoder": 1 / 4,
            "encoder, converting": 1 / 4,
            "converting": 0,
        }
    )
    assert costs(found, STEPS)["encoder"]["wer"].verdict == "worse"  # type: ignore[union-attr]
    assert seen[-1] == ("encoder, target's voice", 6, 6)
    alone = where(Silencing(), pairs, {}, cache=cache, evaluators=ears.bundle())
    assert list(alone) == ["source", "encoder, own voice", "encoder, target's voice"]
    assert list(costs(alone, STEPS)) == ["converting"]


def teacher_speech(folder: Path, count: int = 3) -> Path:
    """Files as the teacher writes them."""
    folder.mkdir()
    for number in range(count):
        content = np.full((512, 40), number, np.float16)
        audio = (speech(1.0, 24_000, 100 + 20 * number) * 20_000).astype(np.int16)
        np.savez(
            folder / f"{number:05d}.npz",
            audio=audio,
            content=content,
            phon=np.zeros(40, np.int16),
            f0=np.zeros(80, np.float32),
        )
    return folder


def test_the_teachers_speech_comes_with_its_exact_content(tmp_path: Path) -> None:
    made = TeacherSpeech(teacher_speech(tmp_path / "made"), tmp_path / "recordings", 2)
    pairs = made.pairs(lambda path: f"heard in {path.stem}")
    assert [(pair.name, pair.references == (pair.source,), pair.transcript) for pair in pairs] == [
        ("00000_to_teacher", True, "heard in 00000"),
        ("00001_to_teacher", True, "heard in 00001"),
    ]
    content = made(pairs[1].source)
    assert content.shape == (512, 80) and torch.all(content == 1)
    with pytest.raises(rtvc.RtvcError, match=r"holds no \.npz files"):
        TeacherSpeech(tmp_path / "none", tmp_path / "recordings", 2)


def hears(wave: np.ndarray) -> np.ndarray:
    """In the recogniser's place: 50 frames a second, which tell their number."""
    frames = len(wave) * 50 // 24_000
    return np.tile(np.arange(frames)[:, None] / 100, (1, 512)).astype(np.float16)


def save_bridge(path: Path) -> Path:
    """Weights of an untrained bridge."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(
        {f"bridge.{name}": tensor.half() for name, tensor in BridgeNet(16, 1).state_dict().items()},
        path,
    )
    return path


def test_labels_are_the_bridges_at_the_mel_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtvc.train.streaming.bridge.Listener", lambda: hears)
    pair_list(tmp_path)
    found = BridgeLabels(save_bridge(tmp_path / "bridge.safetensors"))(
        tmp_path / "eval" / "s0_0.wav"
    )
    assert found.shape == (512, 80)
    assert torch.equal(found[:, ::2], found[:, 1::2])
    assert not torch.equal(found[:, 0], found[:, 2])


def test_the_command_shows_rows_and_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RTVC_CACHE", str(tmp_path / "user"))
    for module in (rtvc.evaluate.run, evaluators):
        monkeypatch.setattr(module, "standard", lambda workers=1: FakeEvaluators().bundle())
    monkeypatch.setattr("rtvc.train.streaming.bridge.Listener", lambda: hears)
    monkeypatch.setattr("rtvc.models.streaming.assets.load_default", small)
    threads = torch.get_num_threads()
    bridge, made = save_bridge(tmp_path / "bridge.safetensors"), teacher_speech(tmp_path / "made")
    arguments: list[Any] = [
        "evaluate",
        "--where",
        "--pairs",
        pair_list(tmp_path),
        "--limit",
        2,
        "--bridge",
        bridge,
        "--teacher",
        made,
    ]
    try:
        assert (
            main([str(argument) for argument in [*arguments, "--json", tmp_path / "out.json"]]) == 0
        )
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    for title in [*(row.title for row in TEACHER_ROWS), *(step.title for step in STEPS)]:
        assert title in printed
    result = json.loads((tmp_path / "out.json").read_text())
    assert list(result["recordings"]["rows"]) == ["source", *(row.title for row in ROWS)]
    assert list(result["teacher's speech"]["costs"]) == [step.title for step in TEACHER_STEPS]
    assert result["recordings"]["rows"]["source"]["pairs"][0]["words"] == len(SAID.split())
    assert (
        main(["evaluate", "--where", "--chunk", "25", "--pairs", str(tmp_path / "pairs.tsv")]) == 2
    )
    assert "leave --chunk" in " ".join(capsys.readouterr().err.split())
    assert labels.MEL_FRAMES * HOP == 600


def test_the_command_says_what_a_dial_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RTVC_CACHE", str(tmp_path / "user"))
    for module in (rtvc.evaluate.run, evaluators):
        monkeypatch.setattr(module, "standard", lambda workers=1: FakeEvaluators().bundle())
    monkeypatch.setattr("rtvc.models.streaming.assets.load_default", small_dial)
    threads = torch.get_num_threads()
    arguments = ["evaluate", "--where", "--pairs", str(pair_list(tmp_path)), "--limit", "2"]
    try:
        assert main([*arguments, "--json", str(tmp_path / "out.json")]) == 0
        result = json.loads((tmp_path / "out.json").read_text())["recordings"]
        assert list(result["rows"]) == ["source", *(row.title for row in DIAL_ROWS)]
        assert list(result["costs"]) == [step.title for step in DIAL_STEPS]
        capsys.readouterr()
        assert main([*arguments, "--teacher", str(tmp_path)]) == 2
    finally:
        torch.set_num_threads(threads)
    assert "leave --teacher out" in " ".join(capsys.readouterr().err.split())
