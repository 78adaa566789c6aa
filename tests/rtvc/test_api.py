"""The public API, with a tiny model in place of the shipped one."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from standins import TinyModel, WholeModel, recording, speech, use_tiny_models

import rtvc
from rtvc.converter import VoiceConverter
from rtvc.errors import AudioError, ConfigError, VoiceError
from rtvc.layers.contract import Delay
from rtvc.models.streaming import assets
from rtvc.models_by_name import load
from rtvc.stream_model import StreamModel
from rtvc.voices.voice import Voice


@pytest.fixture
def vc() -> VoiceConverter:
    """A converter around the tiny streaming model."""
    return VoiceConverter(StreamModel(TinyModel().eval(), "tiny"))


def test_the_public_names_are_sorted_and_there() -> None:
    assert rtvc.__all__ == sorted(rtvc.__all__, key=lambda name: (not name[0].isupper(), name))
    for name in rtvc.__all__:
        assert getattr(rtvc, name) is not None
        assert name in dir(rtvc)
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        _ = rtvc.lod


def test_importing_rtvc_imports_no_torch() -> None:
    code = (
        "import rtvc, sys; rtvc.__version__; assert not {'torch', 'numpy', 'typer'} &"
        " set(sys.modules), sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_loading(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_tiny_models(monkeypatch)
    stream, whole = load(), rtvc.load("whole", device="cpu")
    assert (stream.model.name, whole.model.name) == ("stream", "whole")
    assert stream.latency == pytest.approx(1200 / 24000) and whole.latency is None
    assert not any(p.requires_grad for p in stream.model.converter.parameters())  # type: ignore[attr-defined]
    with pytest.raises(
        ConfigError,
        match=r"no model 'gold': name stream or whole, or a file ending in \.safetensors or \.pth",
    ):
        load("gold")
    with pytest.raises(ConfigError, match=r"expected a file of weights, got .*gone\.pth"):
        load(tmp_path / "gone.pth")
    with pytest.raises(ConfigError, match=r"the device 'gold' cannot be used here .* use 'cpu'"):
        load(device="gold")
    monkeypatch.setattr(assets, "load_file", lambda path: TinyModel())
    (tmp_path / "mine.safetensors").touch()
    assert load(str(tmp_path / "mine.safetensors")).model.space == "tiny"


def test_a_look_ahead_goes_to_files_that_have_a_dial_and_no_further(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[tuple[object, ...]] = []

    def load_file(*arguments: object) -> TinyModel:
        given.append(arguments)
        return TinyModel()

    monkeypatch.setattr(assets, "load_file", load_file)
    path = tmp_path / "mine.safetensors"
    path.touch()
    load(path, lookahead=50.0)
    load(path)
    assert given == [(path, 50.0), (path,)]
    monkeypatch.setattr(assets, "load_default", load_file)
    load("stream", lookahead=50.0)
    assert given[2:] == [(50.0,)]
    with pytest.raises(ConfigError, match="got a look-ahead of 50 ms for a model with one"):
        load("theirs.pth", lookahead=50.0)


def test_nothing_is_fitted_unless_told_to(vc: VoiceConverter) -> None:
    assert vc.fit_steps() == vc.fit_steps(None) == 0 and vc.fit_steps(60) == 60


def test_a_voice_of_recordings(vc: VoiceConverter, tmp_path: Path) -> None:
    low, high = (
        recording(tmp_path / "low.wav", 4, pitch=100),
        recording(tmp_path / "high.wav", 2, pitch=250),
    )
    a, b, both = vc.voice(low), vc.voice(high), vc.voice(low, high)
    assert (a.name, both.name, a.space) == ("low", "low + high", "tiny")
    assert [entry["path"] for entry in both.references] == ["low.wav", "high.wav"], (
        "no folder names reach the file"
    )
    share = a.speech / (a.speech + b.speech)
    assert 0.55 < share < 0.75
    torch.testing.assert_close(both.acoustic, share * a.acoustic + (1 - share) * b.acoustic)
    assert vc.voice(low, name="Bob").name == "Bob"
    memory = vc.voice((speech(4, 16000, 100), 16000))
    torch.testing.assert_close(memory.acoustic, a.acoustic)
    assert memory.name == "recording"
    torch.testing.assert_close(
        vc.voice((torch.from_numpy(speech(4, 16000, 100)), 16000)).acoustic, a.acoustic
    )


def test_voices_and_voice_files_are_references_too(vc: VoiceConverter, tmp_path: Path) -> None:
    a = vc.voice(recording(tmp_path / "a.wav"))
    path = a.save(tmp_path / "a.voice")
    torch.testing.assert_close(vc.voice(path).acoustic, a.acoustic)
    unknown = Voice(torch.ones(128), torch.ones(128))
    weight = a.speech / (a.speech + 10)
    torch.testing.assert_close(vc.voice(a, unknown).acoustic, weight * a.acoustic + (1 - weight))


def test_timbre_and_prosody_of_different_people(vc: VoiceConverter, tmp_path: Path) -> None:
    a, b = recording(tmp_path / "a.wav"), recording(tmp_path / "b.wav", pitch=200, gain=0.3)
    va, vb = vc.voice(a), vc.voice(b)
    for voice in (
        vc.voice(a, prosody=b),
        vc.voice(b, timbre=[a], prosody=vb),
        vc.voice(timbre=a, prosody=b),
    ):
        assert torch.equal(voice.acoustic, va.acoustic) and torch.equal(voice.prosodic, vb.prosodic)
    assert torch.equal(vc.voice(timbre=a).prosodic, va.prosodic) and torch.equal(
        vc.voice(prosody=b).acoustic, vb.acoustic
    )
    assert vc.voice(a, prosody=b, name="both").source["prosody"] == "b"


def test_impossible_references_are_refused(vc: VoiceConverter, tmp_path: Path) -> None:
    with pytest.raises(VoiceError, match="got no reference"):
        vc.voice()
    with pytest.raises(VoiceError, match="an empty list of references"):
        vc.voice(timbre=[])
    with pytest.raises(AudioError, match=r"gone\.wav is not there"):
        vc.voice(tmp_path / "gone.wav")
    with pytest.raises(AudioError, match="the recording lasts"):
        vc.voice((np.ones(10), 16000))
    foreign = Voice(torch.ones(128), torch.ones(128), "eve", {"space": "other"})
    for use in (vc.voice, lambda v: vc.convert(speech(), 16000, v), vc.stream):
        with pytest.raises(VoiceError, match="model 'tiny', got 'eve' of 'other': make it again"):
            use(foreign)


@pytest.mark.parametrize("rate", [16000, 24000, 44100])
def test_the_result_lasts_as_long_as_the_source(vc: VoiceConverter, rate: int) -> None:
    x = speech(1.2345, rate)
    voice = vc.voice((x, rate))
    y = vc.convert(x, rate, voice)
    assert (
        y.dtype == np.float32
        and y.shape == ((2 * len(x) * 24000 + rate) // (2 * rate),)
        and np.isfinite(y).all()
    )
    assert len(vc.convert(torch.from_numpy(x), rate, voice, output_rate=48000)) == pytest.approx(
        2 * len(y), abs=1
    )
    assert not np.array_equal(y, vc.convert(x, rate, voice, pitch=3))
    assert not np.array_equal(y, vc.convert(x, rate, voice, prosody=0))
    with pytest.raises(AudioError, match="sample rate"):
        vc.convert(x, rate, voice, output_rate=1)


def test_latency_is_trimmed() -> None:
    """A model that only delays gives back the recording itself, whatever its length."""

    class Late(TinyModel):
        latency = 700

        def __init__(self) -> None:
            super().__init__()
            self.delay = Delay(1, 700)

        def initial(self, batch: int) -> torch.Tensor:
            return self.delay.initial(batch)

        def forward(
            self, x: torch.Tensor, voice: torch.Tensor, state: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            return self.delay(x, state)

    late = VoiceConverter(StreamModel(Late()))
    for samples in (24000, 24001, 24299, 31234):
        x = speech(2, 24000)[:samples]
        np.testing.assert_array_equal(
            late.convert(x, 24000, Voice(torch.ones(128), torch.ones(128))), x
        )


def test_long_recordings_are_converted_piece_by_piece(
    vc: VoiceConverter, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = speech(1.5, 24000)
    voice = vc.voice((x, 24000))
    whole = vc.convert(x, 24000, voice)
    monkeypatch.setattr("rtvc.converter.CHUNK", 7 * 300)
    np.testing.assert_allclose(vc.convert(x, 24000, voice), whole, atol=1e-5)


def test_a_stream_equals_the_conversion_of_the_whole(vc: VoiceConverter) -> None:
    x = speech(1.5, 24000)
    voice = vc.voice((x, 24000))
    whole = vc.convert(x, 24000, voice, pitch=2)
    stream = vc.stream(voice, pitch=2)
    parts = [stream.push(x[at : at + 777]) for at in range(0, len(x), 777)]
    streamed = np.concatenate([*parts, stream.flush()])
    np.testing.assert_allclose(streamed[: len(whole)], whole, atol=1e-5)


def test_a_stream_at_the_rate_of_a_sound_card(vc: VoiceConverter) -> None:
    voice = vc.voice((speech(), 16000))
    stream = vc.stream(voice, sample_rate=48000, chunk=600)
    x = speech(1, 48000)
    y = np.concatenate(
        [stream.push(x[at : at + 480]) for at in range(0, len(x), 480)] + [stream.flush()]
    )
    assert abs(len(y) - len(x)) <= 1
    assert stream.latency > 0


def test_a_model_for_whole_recordings_cannot_stream() -> None:
    whole = VoiceConverter(WholeModel())
    voice = whole.voice((speech(), 16000))
    x = speech(1, 24000)
    np.testing.assert_array_equal(whole.convert(x, 24000, voice), x[::-1])
    with pytest.raises(
        ConfigError, match="got 'whole', which needs whole recordings: load 'stream'"
    ):
        whole.stream(voice)
