"""Fitting a voice to its recordings: closer on speech that it was not fitted to, the same every
time, and bound to its weights."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from standins import recording, speech, use_tiny_models

import rtvc
from rtvc.audio.io import mono
from rtvc.audio.spectral import BandedSTFT
from rtvc.cli import main
from rtvc.errors import ConfigError, VoiceError
from rtvc.models.streaming.interface import conditioned
from rtvc.models.streaming.model import StreamingConfig, StreamingConverter
from rtvc.voices.fit import fit, weights_of
from rtvc.voices.voice import Voice

ROOT = Path(__file__).parents[3]
EXAMPLES, CHECKPOINTS = ROOT / "examples", ROOT / "checkpoints"
SMALL = StreamingConfig(
    content_hidden=16, content_dilations=(1,), pitch_hidden=8, pitch_dilations=(1,),
    decoder_hidden=16, decoder_dilations=(1, 2), acoustic_hidden=8, prosodic_hidden=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def shipped() -> rtvc.VoiceConverter:
    return rtvc.load()


def small() -> StreamingConverter:
    torch.manual_seed(0)
    return StreamingConverter(SMALL).eval()


def a_voice(model: StreamingConverter, wave: torch.Tensor) -> Voice:
    with torch.inference_mode():
        acoustic, prosodic = model.styles(wave[: len(wave) // 300 * 300][None, None])
    return Voice(acoustic[0].clone(), prosodic[0].clone(), "anna", {"space": "stream"})


@pytest.fixture(scope="module")
def first() -> rtvc.VoiceConverter:
    """The generation before."""
    return rtvc.load(str(CHECKPOINTS / "first.safetensors"))


@pytest.mark.parametrize("generation", ("shipped", "first"))
def test_a_fitted_voice_says_other_sentences_more_alike(
    generation: str, request: pytest.FixtureRequest
) -> None:
    """Fitted to the first half of a recording, the model says the second half more as it was."""
    shipped: rtvc.VoiceConverter = request.getfixturevalue(generation)
    wave, rate = soundfile.read(EXAMPLES / "reference.flac", dtype="float32")
    wave = mono(wave)
    half = len(wave) // 2
    plain = shipped.voice((wave[:half], rate))
    fitted = shipped.voice((wave[:half], rate), fit=12)
    true = shipped.voice((wave[half:], rate))
    assert (
        torch.equal(plain.acoustic, fitted.acoustic)
        and plain.fine is None
        and fitted.fine is not None
    )
    assert (plain.fitted, fitted.fitted) == (None, shipped.weights)
    said = [
        torch.from_numpy(shipped.convert(wave[half:], rate, voice)) for voice in (plain, fitted)
    ]
    from rtvc.audio.resample import resample

    wanted = torch.from_numpy(resample(wave[half:], rate, 24_000))[: len(said[0])]
    before, after = (
        float(BandedSTFT()(x[None, : len(wanted)], wanted[None], torch.tensor([7000.0])))
        for x in said
    )
    assert after < before - 0.005, (before, after)
    assert len(fitted.fine) == shipped._fittable.decoder.style_size
    assert true.fine is None


def test_the_same_every_time_and_the_model_stays_as_it_was() -> None:
    model, wave = small(), torch.from_numpy(speech(3.0, 24_000))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    voice = a_voice(model, wave)
    told: list[tuple[int, int]] = []
    one = fit(
        model, voice, wave, 8000.0, steps=3, progress=lambda done, total: told.append((done, total))
    )
    with torch.inference_mode():
        two = fit(model, voice, wave, 8000.0, steps=3)
    assert (
        one.fine is not None
        and two.fine is not None
        and torch.equal(one.fine, two.fine)
        and one.fine.abs().max() > 0
    )
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
    assert one.source["fit"] == {"weights": weights_of(model), "steps": 3, "seconds": 3.0}
    with pytest.raises(VoiceError, match=r"0\.50 s of recording came, at least 1 s"):
        fit(model, voice, wave[:12_000])


def test_the_condition_carries_the_fit() -> None:
    model = small()
    voice = a_voice(model, torch.from_numpy(speech(2.0, 24_000)))
    fine = torch.randn(model.decoder.style_size)
    plain, fitted = (
        conditioned(model, v, pitch=2.0) for v in (voice, dataclasses.replace(voice, fine=fine))
    )
    torch.testing.assert_close(
        fitted[:, -len(fine) :] - plain[:, -len(fine) :], fine[None], atol=1e-5, rtol=1e-4
    )
    assert torch.equal(fitted[:, : -len(fine)], plain[:, : -len(fine)])
    with pytest.raises(VoiceError, match="got 60000"):
        conditioned(model, dataclasses.replace(voice, fine=torch.zeros(60_000)))


def test_files_and_mixes_of_fitted_voices(tmp_path: Path) -> None:
    source = {"space": "stream", "fit": {"weights": "abc", "steps": 3}}
    a = Voice(torch.zeros(128), torch.zeros(128), "a", source, torch.linspace(-1, 1, 9216))
    b = Voice(torch.ones(128), torch.ones(128), "b", {"space": "stream"})
    path = a.save(tmp_path / "a.voice")
    assert path.stat().st_size < 22_000
    again = Voice.load(path)
    assert again.fine is not None and a.fine is not None
    torch.testing.assert_close(again.fine, a.fine, atol=5e-4, rtol=1e-3)
    assert (
        again.fitted == "abc" and again.unfitted().fine is None and again.unfitted().fitted is None
    )
    mixed = Voice.mix({a: 1, b: 3})
    assert mixed.fine is not None and mixed.fitted == "abc"
    torch.testing.assert_close(mixed.fine, a.fine / 4)
    assert (
        a.with_prosody_of(b).fitted == "abc"
        and b.with_prosody_of(a).fine is None
        and Voice.mix({b: 1}).fine is None
    )
    other = Voice(
        torch.zeros(128),
        torch.zeros(128),
        "c",
        source | {"fit": {"weights": "def"}},
        torch.zeros(9216),
    )
    with pytest.raises(VoiceError, match=r"fitted to different weights \(abc, def\)"):
        Voice.mix({a: 1, other: 1})
    short = dataclasses.replace(a, fine=torch.zeros(7))
    with pytest.raises(VoiceError, match=r"fitted to \[7, 9216\] numbers"):
        Voice.mix({a: 1, short: 1})
    for bad in (
        torch.zeros(2, 3),
        torch.full((4,), float("nan")),
        torch.zeros(0),
        torch.zeros(1 << 17),
    ):
        with pytest.raises(VoiceError, match="that of 'a' has the shape"):
            dataclasses.replace(a, fine=bad)


def test_a_fit_to_other_weights_is_left_out(shipped: rtvc.VoiceConverter) -> None:
    source = {"space": shipped.model.space, "fit": {"weights": "other"}}
    voice = Voice(torch.zeros(128), torch.zeros(128), "old", source, torch.ones(9216))
    x = speech(0.5, 24_000)
    with pytest.warns(
        UserWarning, match="'old' was fitted to other weights, only its styles are used"
    ):
        heard = shipped.convert(x, 24_000, voice)
    assert np.array_equal(heard, shipped.convert(x, 24_000, voice.unfitted()))


def test_models_that_cannot_fit_say_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    use_tiny_models(monkeypatch)
    vc = rtvc.load()
    assert not vc.fittable and vc.weights is None
    with pytest.raises(ConfigError, match="voices of the model 'stream' cannot be fitted"):
        vc.voice((speech(), 16_000), fit=3)
    path = recording(tmp_path / "anna.wav")
    assert main(["voice", "create", str(path), "-o", str(tmp_path / "a.voice"), "--fit", "3"]) == 2
    assert "cannot be fitted: leave fit out" in " ".join(capsys.readouterr().err.split())
    assert main(["voice", "create", str(path), "-o", str(tmp_path / "a.voice")]) == 0
    assert Voice.load(tmp_path / "a.voice").fine is None


def test_a_session_parks_and_resumes_with_the_fit() -> None:
    from rtvc.engine.backends.eager import TorchBackend
    from rtvc.engine.streams.session import Session

    model = small()
    voice = dataclasses.replace(
        a_voice(model, torch.from_numpy(speech(2.0, 24_000))),
        fine=torch.randn(model.decoder.style_size) * 0.1,
    )
    x = speech(1.0, 24_000)
    whole = Session(TorchBackend(model, 600), voice)
    expected = np.concatenate([whole.push(x), whole.flush()])
    first, second = (Session(TorchBackend(model, 600), v) for v in (voice, voice.unfitted()))
    head = first.push(x[:9000])
    second.resume(first.park())
    np.testing.assert_allclose(
        np.concatenate([head, second.push(x[9000:]), second.flush()]), expected, atol=1e-6
    )
