"""Whatever recording a voice is made of, it is the speech in it that is used; where there is none
it is refused.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from standins import TinyModel, recording, speech

import rtvc
from rtvc.audio.recording import read
from rtvc.converter import VoiceConverter
from rtvc.errors import AudioError
from rtvc.stream_model import StreamModel
from rtvc.voices.reference import APART, LONGEST_S, find_reference, two_groups
from rtvc.voices.speech import find_speech

EXAMPLES = Path(__file__).parents[3] / "examples"
RATE = 24_000


def noise(
    seconds: float, colour: float = 0.0, level: float = -20.0, rate: int = RATE
) -> np.ndarray:
    """Noise whose power falls by 3 dB an octave for each unit of colour, at `level` dBFS, (N,)
    float32.
    """
    count = int(seconds * rate)
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(count))
    spectrum[5:] /= np.arange(5, len(spectrum)) ** (colour / 2)
    spectrum[:5] = 0
    wave = np.fft.irfft(spectrum, count)
    return (wave / wave.std() * 10 ** (level / 20)).astype(np.float32)


def seconds(count: float) -> np.ndarray:
    """Times of samples, (N,)."""
    return np.arange(int(count * RATE)) / RATE


def notes(polyphony: int, decay: float) -> np.ndarray:
    """Eight seconds of notes of a major scale, four a second."""
    rng, out = np.random.default_rng(polyphony), np.zeros(10 * RATE)
    for start in range(0, 8 * RATE, RATE // 4):
        for _ in range(polyphony):
            pitch, at = (
                110 * 2 ** (rng.choice([0, 2, 4, 5, 7, 9, 11, 12, 14, 16]) / 12),
                seconds(0.5),
            )
            tone = sum(np.sin(2 * math.pi * pitch * k * at) / k for k in range(1, 8)) * np.exp(
                -decay * at
            )
            out[start : start + len(tone)] += tone * np.clip(at / 0.005, 0, 1)
    return out[: 8 * RATE]


def drums() -> np.ndarray:
    """Bursts of noise four times a second."""
    return noise(8) * np.exp(-30 * (seconds(8) % 0.25))


def harmonics(pitches: list[float]) -> np.ndarray:
    """Eight seconds of a steady sound."""
    return sum(np.sin(2 * math.pi * f * k * seconds(8)) / k for f in pitches for k in range(1, 9))


SOUNDS = {
    "white noise": noise(8),
    "quiet noise": noise(8, level=-45),
    "pink noise": noise(8, 1),
    "brown noise": noise(8, 2),
    "noise that comes and goes": noise(8, 1) * np.clip(np.sin(6 * math.pi * seconds(8)), 0, 1),
    "hum": harmonics([50]),
    "a tone": np.sin(2 * math.pi * 440 * seconds(8)),
    "a chord": harmonics([220, 277.2, 329.6]),
    "a melody": notes(1, 3.0),
    "an organ": notes(3, 0.0),
    "music": notes(3, 3.0) + 3 * drums(),
    "drums": drums(),
    "clicks": (np.arange(8 * RATE) % 12_000 == 0).astype(np.float32),
}


@pytest.fixture(scope="module")
def vc() -> rtvc.VoiceConverter:
    """The shipped model."""
    return rtvc.load()


@pytest.fixture
def tiny() -> VoiceConverter:
    """A model that takes no time."""
    return VoiceConverter(StreamModel(TinyModel().eval(), "tiny"))


@pytest.mark.parametrize("name", SOUNDS)
def test_what_is_no_speech_is_refused(tiny: VoiceConverter, name: str) -> None:
    wave = (0.2 * SOUNDS[name] / np.abs(SOUNDS[name]).max()).astype(np.float32)
    with pytest.raises(
        AudioError,
        match=r"no speech was found in 8\.0 s of the recording: .* use a recording of one person",
    ):
        tiny.voice((wave, RATE))


@pytest.mark.parametrize("name", ["source", "reference"])
@pytest.mark.parametrize("snr", [math.inf, 20.0, 10.0, 5.0])
def test_speech_is_found_in_silence_and_in_noise(name: str, snr: float) -> None:
    clean = read(EXAMPLES / f"{name}.flac").numpy()
    level = 10 * math.log10(float(np.mean(np.square(clean[np.abs(clean) > 0.02])))) - snr
    found = find_speech(
        clean + (noise(len(clean) / RATE, level=level) if snr < math.inf else 0), RATE
    )
    least = {math.inf: 0.6, 20.0: 0.5, 10.0: 0.35, 5.0: 0.2}[snr]
    assert found.seconds > least * len(clean) / RATE and found.moving > 0.4


def test_a_first_minute_of_silence_costs_nothing(vc: rtvc.VoiceConverter, tmp_path: Path) -> None:
    """The voice is the one of the recording itself, and says the same without exceeding full
    scale.
    """
    wave = read(EXAMPLES / "reference.flac").numpy()
    path = tmp_path / "late.flac"
    soundfile.write(path, np.concatenate([np.zeros(65 * RATE, np.float32), wave]), RATE)
    late, plain = vc.voice(path), vc.voice((wave, RATE))
    assert (late.acoustic - plain.acoustic).norm() < 0.05 * plain.acoustic.norm()
    entry = late.references[0]
    assert (
        entry["seconds"] == pytest.approx(65 + len(wave) / RATE, abs=0.01) and entry["speech"] > 6
    )
    assert np.abs(vc.convert(read(EXAMPLES / "source.flac").numpy(), RATE, late)).max() < 1


def test_noise_and_music_around_the_speech_are_left_out(vc: rtvc.VoiceConverter) -> None:
    wave = read(EXAMPLES / "reference.flac").numpy()
    around = [
        noise(30, 1, -30),
        np.zeros(2 * RATE),
        wave,
        np.zeros(2 * RATE),
        0.05 * harmonics([220.0, 277.2]),
    ]
    buried, plain = vc.voice((np.concatenate(around), RATE)), vc.voice((wave, RATE))
    assert (buried.acoustic - plain.acoustic).norm() < 0.1 * plain.acoustic.norm()


def test_a_minute_of_speech_is_used_and_no_more_is_read(tmp_path: Path) -> None:
    """Of three minutes, in which a third is silence, what is used is speech; and what follows is
    not even decoded.
    """
    path = tmp_path / "long.wav"
    wave = np.concatenate([np.pad(speech(8.0), (0, 4 * 16_000)) for _ in range(15)])
    soundfile.write(path, wave, 16_000, subtype="FLOAT")
    found = find_reference(path)
    assert found.report.seconds == 180 and found.report.used == pytest.approx(LONGEST_S, abs=0.01)
    assert len(found.samples) == LONGEST_S * RATE and found.report.speech > 25
    broken = wave.copy()
    broken[-16_000:] = np.nan
    soundfile.write(path, broken, 16_000, subtype="FLOAT")
    assert torch.equal(find_reference(path).samples, found.samples)


def test_a_cut_recording_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rtvc.cli.voice import length

    assert length({"seconds": 130.0, "used": 60.0}) == "130.0 s, 60.0 s used"
    assert (
        length({"seconds": 12.0, "used": 12.0})
        == length({"seconds": 12.0})
        == length({"seconds": 12.0, "used": "x"})
        == "12.0 s"
    )


@pytest.mark.parametrize("dtype", [np.float64, np.int16, np.int32, np.float16])
def test_references_in_memory_may_have_the_types_that_sources_may_have(
    tiny: VoiceConverter, dtype: type
) -> None:
    wave = speech(3.0)
    scaled = (
        wave * -float(np.iinfo(dtype).min) if np.issubdtype(dtype, np.integer) else wave
    ).astype(dtype)
    wanted = tiny.voice((wave, 16_000))
    torch.testing.assert_close(
        tiny.voice((scaled, 16_000)).acoustic, wanted.acoustic, rtol=2e-2, atol=2e-3
    )
    grown = torch.from_numpy(wave).requires_grad_()
    assert torch.equal(tiny.voice((grown, 16_000)).acoustic, wanted.acoustic)


def test_two_people_in_one_reference_are_told_of(vc: rtvc.VoiceConverter) -> None:
    woman, man = read(EXAMPLES / "reference.flac").numpy(), read(EXAMPLES / "source.flac").numpy()
    advice = [
        vc.voice((wave, RATE)).references[0]["advice"]
        for wave in (woman, man, np.concatenate([woman, man]))
    ]
    assert [any("two people" in line for line in lines) for lines in advice] == [False, False, True]


def test_groups_of_styles_are_as_far_apart_as_their_means() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = torch.eye(16)[0], torch.eye(16)[1]
    around = 0.05 * torch.randn(8, 16, generator=generator)
    alike = torch.nn.functional.normalize(one + around)
    apart = torch.nn.functional.normalize(torch.stack([one, other] * 4) + around)
    assert (
        two_groups(alike) < 0.1 < APART["stream"] < 0.8 < two_groups(apart)
        and two_groups(alike[:1].repeat(4, 1)) == 0
    )


def test_advice_reaches_whoever_converts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from standins import use_tiny_models

    from rtvc.cli import main

    use_tiny_models(monkeypatch)
    reference, source = recording(tmp_path / "r.wav", 2), recording(tmp_path / "s.wav", 2)
    assert (
        main(
            [
                "convert",
                str(source),
                "-r",
                str(reference),
                "-o",
                str(tmp_path / "o.wav"),
                "--fit",
                "0",
            ]
        )
        == 0
    )
    assert (
        "reference r.wav is usable: 1.0 s of speech in 2.0 s: give 5 to 20 s"
        in capsys.readouterr().err
    )
    soundfile.write(tmp_path / "n.wav", noise(4), RATE)
    assert (
        main(["convert", str(source), "-r", str(tmp_path / "n.wav"), "-o", str(tmp_path / "p.wav")])
        == 2
    )
    assert (
        "no speech was found in 4.0 s" in capsys.readouterr().err
        and not (tmp_path / "p.wav").exists()
    )
